"""make_random_model.py SHAPE FOLDER: a model of a published shape with drawn weights, twice: a folder as transformers writes it in
bfloat16, and FOLDER/model.f16.gguf with the same numbers for llama.cpp. SHAPE: qwen3-0.6b, or tiny (proves that everything runs).
Neither has a tokenizer: speed does not depend on one. Needs torch, transformers and gguf."""
import sys

import gguf
import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

SHAPES = {
    "qwen3-0.6b": dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
                       head_dim=128, vocab_size=151936),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                 vocab_size=320),
}
shape, folder = SHAPES[sys.argv[1]], sys.argv[2]
torch.manual_seed(1)
config = Qwen3Config(**shape, max_position_embeddings=40960, rope_theta=1e6, tie_word_embeddings=True, bos_token_id=None,
                     eos_token_id=None)
model = Qwen3ForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(folder)

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
writer = gguf.GGUFWriter(f"{folder}/model.f16.gguf", "qwen3")
writer.add_block_count(shape["num_hidden_layers"])
writer.add_context_length(40960)
writer.add_embedding_length(shape["hidden_size"])
writer.add_feed_forward_length(shape["intermediate_size"])
writer.add_head_count(shape["num_attention_heads"])
writer.add_head_count_kv(shape["num_key_value_heads"])
writer.add_key_length(shape["head_dim"])
writer.add_value_length(shape["head_dim"])
writer.add_rope_freq_base(1e6)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(shape["vocab_size"])
writer.add_tokenizer_model("no_vocab")
writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
for name, tensor in model.state_dict().items():
    if name == "lm_head.weight":
        continue  # the embedding
    parts = name.removeprefix("model.").removesuffix(".weight").split(".", 2)
    if parts[0] == "layers":
        ours = f"blk.{parts[1]}.{NAMES[parts[2]]}"
    else:
        ours = {"embed_tokens": "token_embd", "norm": "output_norm"}[parts[0]]
    values = tensor.float().numpy()
    writer.add_tensor(ours + ".weight", values.astype(np.float16 if values.ndim > 1 else np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
