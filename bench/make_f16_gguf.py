"""make_f16_gguf.py IN.gguf OUT.gguf: the same model with its matrices in f16 and its vectors in f32."""
import sys

import gguf
import numpy as np
from gguf.quants import dequantize

reader = gguf.GGUFReader(sys.argv[1])
kinds = gguf.GGUFValueType
architecture = reader.get_field("general.architecture").contents()
writer = gguf.GGUFWriter(sys.argv[2], architecture)
for name, field in reader.fields.items():
    if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
        continue
    kind = field.types[0]
    writer.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if kind == kinds.ARRAY else None)
writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
for tensor in reader.tensors:
    values = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in reversed(tensor.shape)])
    writer.add_tensor(tensor.name, values.astype(np.float16 if values.ndim > 1 else np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
