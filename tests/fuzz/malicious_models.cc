// Weights, GGUF files, tokenizers and configurations that lie.
#include "malicious_parts.h"
#include "targets.h"
#include "tests/testing/gguf_maker.h"

namespace plumb::fuzz {
namespace {

using testing::GgufMaker;
using testing::GgufText;
using testing::kGgufArray;
using testing::kGgufString;
using testing::kGgufU32;
using testing::Raw;
using testing::TinyGguf;

std::string Tensors(const std::string& header, size_t data, uint64_t claimed) {
  return Raw(claimed) + header + std::string(data, 'd');
}
std::string Tensors(const std::string& header, size_t data) {
  return Tensors(header, data, header.size());
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" + shape +
         R"(],"data_offsets":[)" + offsets + "]}";
}

}  // namespace

std::vector<Malicious> SafetensorsCorpus() {
  Corpus c("model.safetensors");
  const std::string a = Entry("a", "F32", "1", "0,4");
  c.Add("empty", "");
  c.Add("seven bytes", "1234567");
  c.Add("header of 2^64 - 1", Tensors("{}", 0, ~uint64_t{0}));
  c.Add("header of 2^63", Tensors("{}", 0, uint64_t{1} << 63));
  c.Add("header that wraps with its eight bytes", Tensors("{}", 0, ~uint64_t{0} - 7));
  c.Add("header of 100 MB + 1 in a sparse claim", Tensors("{}", 0, (uint64_t{100} << 20) + 1));
  c.Add("header one byte too long", Tensors("{" + a + "}", 4, 3 + a.size() + 5));
  c.Add("header of no bytes", Tensors("", 0));
  c.Add("header that is an array", Tensors("[]", 0));
  c.Add("header that is a number", Tensors("1", 0));
  c.Add("header with a rest", Tensors("{}{}", 0));
  c.Add("header nested a million deep", Tensors(Repeat("{\"a\":", 1000000), 0));
  c.Add("header of a million brackets", Tensors(Repeat("[", 1000000), 0));
  c.Add("header with a NUL", Tensors(std::string("{\0}", 3), 0));
  c.Add("header of broken UTF-8", Tensors("{\"\xff\xfe\":1}", 0));
  c.Add("two tensors in one place",
        Tensors("{" + a + "," + Entry("b", "F32", "1", "0,4") + "}", 4));
  c.Add("two tensors that overlap",
        Tensors("{" + a + "," + Entry("b", "F32", "1", "2,6") + "}", 6));
  c.Add("a hole between tensors",
        Tensors("{" + a + "," + Entry("b", "F32", "1", "8,12") + "}", 12));
  c.Add("a hole at the start", Tensors("{" + Entry("a", "F32", "1", "4,8") + "}", 8));
  c.Add("bytes behind the last tensor", Tensors("{" + a + "}", 5));
  c.Add("data without a tensor", Tensors("{}", 64));
  c.Add("the same key twice", Tensors("{" + a + "," + Entry("a", "F32", "1", "4,8") + "}", 8));
  c.Add("offset past the end", Tensors("{" + Entry("a", "F32", "2", "0,8") + "}", 4));
  c.Add(
      "offsets of 2^64 - 1",
      Tensors("{" + Entry("a", "F32", "1", "18446744073709551612,18446744073709551615") + "}", 4));
  c.Add("offsets past 64 bits",
        Tensors("{" + Entry("a", "F32", "1", "0,18446744073709551616") + "}", 4));
  c.Add("negative offsets", Tensors("{" + Entry("a", "F32", "1", "-4,0") + "}", 4));
  c.Add("end before begin", Tensors("{" + Entry("a", "F32", "1", "4,0") + "}", 4));
  c.Add("offsets as fractions", Tensors("{" + Entry("a", "F32", "1", "0.0,4.0") + "}", 4));
  c.Add("one offset", Tensors("{" + Entry("a", "F32", "1", "0") + "}", 4));
  c.Add("three offsets", Tensors("{" + Entry("a", "F32", "1", "0,4,8") + "}", 4));
  c.Add("sizes of another dtype", Tensors("{" + Entry("a", "BF16", "1", "0,4") + "}", 4));
  c.Add("a dtype nobody knows", Tensors("{" + Entry("a", "F4_E2M1X", "1", "0,4") + "}", 4));
  c.Add("a dtype of a megabyte",
        Tensors("{" + Entry("a", Repeat("F", 1 << 20), "1", "0,4") + "}", 4));
  c.Add("a shape whose product wraps to 4",
        Tensors("{" + Entry("a", "F32", "4611686018427387905,4", "0,4") + "}", 4));
  c.Add("a shape of 2^63", Tensors("{" + Entry("a", "F32", "9223372036854775808", "0,4") + "}", 4));
  c.Add("a shape that is negative", Tensors("{" + Entry("a", "F32", "-1", "0,4") + "}", 4));
  c.Add("a shape of 10,000 dimensions",
        Tensors("{" + Entry("a", "F32", Repeat("1,", 9999) + "1", "0,4") + "}", 4));
  c.Add("a shape that is text",
        Tensors(R"({"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}})", 4));
  c.Add("a tensor without a shape", Tensors(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4));
  c.Add("a tensor that is null", Tensors(R"({"a":null})", 0));
  c.Add("metadata that is a number", Tensors(R"({"__metadata__":{"x":1}})", 0));
  c.Add("metadata that is a list", Tensors(R"({"__metadata__":[]})", 0));
  c.Add("four megabytes of empty arrays", Tensors("{\"a\":[" + Repeat("[],", 1400000) + "[]]}", 0));
  c.Add("four megabytes of numbers", Tensors("{\"a\":[" + Repeat("0,", 2000000) + "0]}", 0));
  c.Add("four megabytes of empty objects",
        Tensors("{\"a\":[" + Repeat("{},", 1400000) + "{}]}", 0));
  const auto index = [&](const std::string& name, const std::string& text) {
    c.Add(name, Files{{"model.safetensors.index.json", text},
                      {"one.safetensors", Tensors("{" + a + "}", 4)}});
  };
  index("an index out of the folder", R"({"weight_map":{"a":"../one.safetensors"}})");
  index("an index to an absolute path", R"({"weight_map":{"a":"/etc/passwd"}})");
  index("an index through a folder", R"({"weight_map":{"a":"x/../one.safetensors"}})");
  index("an index to the folder itself", R"({"weight_map":{"a":"."}})");
  index("an index to nothing", R"({"weight_map":{"a":""}})");
  index("an index with a NUL in a name", R"({"weight_map":{"a":"one.safetensors\u0000.bin"}})");
  index("an index to itself", R"({"weight_map":{"a":"model.safetensors.index.json"}})");
  index("an index to a file that is not there", R"({"weight_map":{"a":"two.safetensors"}})");
  index("an index to a tensor that is not there",
        R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  index("an index that lists a tensor twice",
        R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})");
  index("an index with numbers for files", R"({"weight_map":{"a":7}})");
  index("an index without a map", "{}");
  index("an index that is a list", "[]");
  index("an index of a million brackets", Repeat("[", 1000000));
  return c.Take();
}

std::vector<Malicious> GgufCorpus() {
  Corpus c("model.gguf");
  const auto head = [](uint32_t version, uint64_t tensors, uint64_t values) {
    return "GGUF" + Raw(version) + Raw(tensors) + Raw(values);
  };
  const uint64_t huge = uint64_t{1} << 60;
  c.Add("empty", "");
  c.Add("the magic alone", "GGUF");
  c.Add("the magic of the other byte order", "FUGG" + Raw<uint32_t>(3) + std::string(16, '\0'));
  c.Add("version 0", head(0, 0, 0));
  c.Add("version 1", head(1, 0, 0));
  c.Add("version 2^32 - 1", head(~uint32_t{0}, 0, 0));
  c.Add("2^60 tensors", head(3, huge, 0));
  c.Add("2^60 keys", head(3, 0, huge));
  c.Add("a million tensors that are not there", head(3, 1 << 20, 0));
  c.Add("a million keys that are not there", head(3, 0, 1 << 20));
  c.Add("a key of 2^60 bytes", head(3, 0, 1) + Raw(huge) + "x");
  c.Add("a key of 2^64 - 1 bytes", head(3, 0, 1) + Raw(~uint64_t{0}) + "x");
  c.Add("a text of 2^63 bytes",
        head(3, 0, 1) + GgufText("k") + Raw(kGgufString) + Raw(uint64_t{1} << 63));
  c.Add("a text a byte longer than the file",
        head(3, 0, 1) + GgufText("k") + Raw(kGgufString) + Raw<uint64_t>(3) + "ab");
  c.Add("an array of 2^60 texts",
        head(3, 0, 1) + GgufText("k") + Raw(kGgufArray) + Raw(kGgufString) + Raw(huge));
  c.Add("an array of 2^60 bytes",
        head(3, 0, 1) + GgufText("k") + Raw(kGgufArray) + Raw<uint32_t>(0) + Raw(huge));
  c.Add("an array of arrays",
        head(3, 0, 1) + GgufText("k") + Raw(kGgufArray) + Raw(kGgufArray) + Raw<uint64_t>(1));
  std::string nested = head(3, 0, 1) + GgufText("k");
  for (int i = 0; i < 100000; ++i) nested += Raw(kGgufArray);
  c.Add("arrays 100,000 deep", nested);
  c.Add("a value of type 13",
        head(3, 0, 1) + GgufText("k") + Raw<uint32_t>(13) + std::string(64, '\0'));
  c.Add("an array of type 99", head(3, 0, 1) + GgufText("k") + Raw(kGgufArray) + Raw<uint32_t>(99) +
                                   Raw<uint64_t>(1) + std::string(64, '\0'));
  c.Add("sixteen megabytes of bytes in an array", [=] {
    GgufMaker m;
    m.Value("k", kGgufArray,
            Raw<uint32_t>(0) + Raw(uint64_t{16} << 20) + std::string(size_t{16} << 20, '\1'));
    return m.File();
  });
  c.Add("a million empty texts in an array", [=] {
    GgufMaker m;
    m.Value("k", kGgufArray,
            Raw(kGgufString) + Raw<uint64_t>(1000000) + std::string(8000000, '\0'));
    return m.File();
  });
  c.Add("a million keys of one byte", [=] {
    GgufMaker m;
    for (uint32_t i = 0; i < 200000; ++i) m.Value(Raw(i), 0, std::string(1, '\1'));
    return m.File();
  });
  const auto model = [&](const std::string& name, const std::function<void(GgufMaker&)>& change) {
    GgufMaker m = TinyGguf();
    change(m);
    c.Add(name, m.File());
  };
  model("the same key twice", [](GgufMaker& m) { m.Integer("llama.block_count", 1); });
  model("the same tensor twice",
        [](GgufMaker& m) { m.Tensor("output_norm.weight", {8}, 0, std::string(32, 'x')); });
  model("a tensor of no dimensions", [](GgufMaker& m) { m.Tensor("x", {}, 0, ""); });
  model("a tensor of 1,000 dimensions",
        [](GgufMaker& m) { m.Tensor("x", std::vector<uint64_t>(1000, 1), 0, "1234"); });
  model("a dimension of 0", [](GgufMaker& m) { m.Tensor("x", {0}, 0, ""); });
  model("a dimension of 2^63", [](GgufMaker& m) { m.Tensor("x", {uint64_t{1} << 63}, 0, ""); });
  model("dimensions whose product wraps", [](GgufMaker& m) {
    m.Tensor("x", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, "");
  });
  model("a tensor of an unknown type",
        [](GgufMaker& m) { m.Tensor("x", {32}, 77, std::string(64, 'x')); });
  model("a tensor of type 2^32 - 1",
        [](GgufMaker& m) { m.Tensor("x", {32}, ~uint32_t{0}, std::string(64, 'x')); });
  model("half a block", [](GgufMaker& m) { m.Tensor("x", {16}, 8, std::string(34, 'x')); });
  model("a tensor past the end", [](GgufMaker& m) { m.Tensor("x", {1 << 20}, 0, "1234"); });
  model("alignment 0", [](GgufMaker& m) { m.Integer("general.alignment", 0); });
  model("alignment 3", [](GgufMaker& m) { m.Integer("general.alignment", 3); });
  model("alignment 2^31", [](GgufMaker& m) { m.Integer("general.alignment", 1u << 31); });
  model("alignment of -8", [](GgufMaker& m) { m.Value("general.alignment", 5, Raw<int32_t>(-8)); });
  model("alignment as a text", [](GgufMaker& m) { m.Word("general.alignment", "32"); });
  const auto offset = [&](const std::string& name, uint64_t at) {
    GgufMaker m = TinyGguf();
    m.infos.replace(m.infos.size() - 8, 8, Raw(at));
    c.Add(name, m.File());
  };
  offset("an offset of 2^64 - 32", ~uint64_t{0} - 31);
  offset("an offset that is not aligned", 7);
  offset("an offset onto another tensor", 0);
  offset("an offset past the end", 1 << 20);
  const auto changed = [&](const std::string& name, const std::string& key, const std::string& to,
                           const std::string& from) {
    GgufMaker m = TinyGguf();
    const size_t at = m.values.find(GgufText(key)) + 8 + key.size() + 4;
    m.values.replace(at, from.size(), to);
    c.Add(name, m.File());
  };
  const std::string four(4, '\0');
  changed("no layers", "llama.block_count", Raw<uint32_t>(0), four);
  changed("2^32 - 1 layers", "llama.block_count", Raw(~uint32_t{0}), four);
  changed("no heads", "llama.attention.head_count", Raw<uint32_t>(0), four);
  changed("heads that do not divide", "llama.attention.head_count", Raw<uint32_t>(3), four);
  changed("KV heads that do not divide", "llama.attention.head_count_kv", Raw<uint32_t>(3), four);
  changed("no KV heads", "llama.attention.head_count_kv", Raw<uint32_t>(0), four);
  changed("a width of 2^32 - 1", "llama.embedding_length", Raw(~uint32_t{0}), four);
  changed("a rotary base that is NaN", "llama.rope.freq_base", Raw(~uint32_t{0}), four);
  changed("a rotary base that is infinite", "llama.rope.freq_base", Raw<uint32_t>(0x7F800000),
          four);
  changed("a norm of -1", "llama.attention.layer_norm_rms_epsilon", Raw(-1.0f), four);
  changed("an end token outside the vocabulary", "tokenizer.ggml.eos_token_id",
          Raw<uint32_t>(1u << 30), four);
  changed("another architecture", "general.architecture", GgufText("gemma"), GgufText("llama"));
  const auto replaced = [&](const std::string& name, const std::string& from,
                            const std::string& to) {
    GgufMaker m = TinyGguf();
    m.values.replace(m.values.find(from), from.size(), to);
    c.Add(name, m.File());
  };
  replaced("a token that is no UTF-8", GgufText("ab"), GgufText("\xff\xfe"));
  replaced("two tokens alike", GgufText("ab"), GgufText("a"));
  replaced("a merge of tokens that are not there", GgufText("a b"), GgufText("x y"));
  replaced("a merge without a space", GgufText("a b"), GgufText("a_b"));
  replaced("a pre-tokenizer nobody knows", GgufText("smollm"), GgufText("regex!"));
  replaced("a chat template that is no UTF-8", GgufText("{{ bos_token }}{{ messages[0].content }}"),
           GgufText("{{ '\xff' }}"));
  replaced("a chat template that does not parse",
           GgufText("{{ bos_token }}{{ messages[0].content }}"), GgufText("{% for %}"));
  const auto extra = [&](const std::string& name, const std::function<void(GgufMaker&)>& change,
                         bool by_scores = false) {
    GgufMaker m = TinyGguf("llama", by_scores);
    change(m);
    c.Add(name, m.File());
  };
  extra("one of 2^32 - 1 files", [](GgufMaker& m) {
    m.Integer("split.no", 0);
    m.Integer("split.count", ~uint32_t{0});
  });
  extra("one of two files, whose name is no part's", [](GgufMaker& m) {
    m.Integer("split.no", 0);
    m.Integer("split.count", 2);
  });
  extra("more files than one, and no number", [](GgufMaker& m) { m.Integer("split.count", 2); });
  extra("a count of files as a text", [](GgufMaker& m) { m.Word("split.count", "2"); });
  extra("half a block of 256",
        [](GgufMaker& m) { m.Tensor("x", {128}, 12, std::string(72, 'x')); });
  extra("blocks of 256 past the end", [](GgufMaker& m) {
    m.Tensor("x", {256, 1000}, 14, std::string(210, 'x'));
  });
  extra("rows of blocks of 7 exabytes", [](GgufMaker& m) {
    m.Tensor("x", {uint64_t{1} << 40, uint64_t{1} << 23}, 14, "");
  });
  extra("divisors of the frequencies that are NaN",
        [](GgufMaker& m) { m.Tensor("rope_freqs.weight", {2}, 0, std::string(8, '\xff')); });
  extra("divisors of the frequencies that are 0",
        [](GgufMaker& m) { m.Tensor("rope_freqs.weight", {2}, 0, std::string(8, '\0')); });
  extra("more divisors than frequencies",
        [](GgufMaker& m) { m.Tensor("rope_freqs.weight", {1024}, 0, std::string(4096, '\1')); });
  extra("a stretching of 0",
        [](GgufMaker& m) { m.Value("llama.rope.scaling.factor", testing::kGgufF32, Raw(0.0f)); });
  extra("a stretching that is NaN", [](GgufMaker& m) {
    m.Value("llama.rope.scaling.factor", testing::kGgufF32, Raw(~uint32_t{0}));
  });
  extra("a head of 2^32 - 1",
        [](GgufMaker& m) { m.Integer("llama.attention.key_length", ~uint32_t{0}); });
  extra("a head of -4", [](GgufMaker& m) {
    m.Value("llama.attention.key_length", testing::kGgufI32, Raw<int32_t>(-4));
  });
  extra("more dimensions that turn than a head has",
        [](GgufMaker& m) { m.Integer("llama.rope.dimension_count", 64); });
  extra("a window of 2^32 - 1",
        [](GgufMaker& m) { m.Integer("llama.attention.sliding_window", ~uint32_t{0}); });
  extra("2^32 - 1 experts", [](GgufMaker& m) { m.Integer("llama.expert_count", ~uint32_t{0}); });
  extra("a list for each layer that has none", [](GgufMaker& m) {
    m.Value("llama.attention.head_count_kv.x", kGgufArray,
            Raw(kGgufArray) + Raw<uint64_t>(uint64_t{1} << 40));
  });
  extra(
      "an unknown token outside the vocabulary",
      [](GgufMaker& m) { m.Integer("tokenizer.ggml.unknown_token_id", 1u << 31); }, true);
  const auto scores = [&](const std::string& name, const std::string& list) {
    GgufMaker m = TinyGguf("llama", true);
    std::string old = Raw(testing::kGgufF32) + Raw<uint64_t>(7);
    for (int i = 0; i < 7; ++i) old += Raw(static_cast<float>(-i));
    m.values.replace(m.values.find(old), old.size(), list);
    c.Add(name, m.File());
  };
  scores("scores that are NaN",
         Raw(testing::kGgufF32) + Raw<uint64_t>(7) + std::string(28, '\xff'));
  scores("fewer scores than tokens", Raw(testing::kGgufF32) + Raw<uint64_t>(1) + Raw(1.0f));
  scores("scores as whole numbers",
         Raw(testing::kGgufI32) + Raw<uint64_t>(7) + std::string(28, '\0'));
  const std::string whole = TinyGguf().File();
  c.Add("cut in the middle of the keys", whole.substr(0, 300));
  c.Add("cut in the middle of the tensors", whole.substr(0, whole.size() - 100));
  return c.Take();
}

std::vector<Malicious> TokenizerCorpus() {
  Corpus c("tokenizer.json");
  const auto json = [](const std::string& vocab, const std::string& merges,
                       const std::string& added = "[]", const std::string& pre = "null") {
    return R"({"added_tokens":)" + added + R"(,"normalizer":null,"pre_tokenizer":)" + pre +
           R"(,"model":{"type":"BPE","vocab":)" + vocab + R"(,"merges":)" + merges + "}}";
  };
  c.Add("empty", "");
  c.Add("null", "null");
  c.Add("a list", "[]");
  c.Add("no model", "{}");
  c.Add("a model of another type", R"({"model":{"type":"WordPiece","vocab":{}}})");
  const auto unigram = [](const std::string& vocab, const std::string& rest = "") {
    return R"({"model":{"type":"Unigram","vocab":)" + vocab + "}" + rest + "}";
  };
  c.Add("Unigram with a vocabulary of merges", unigram(R"({"a":0})"));
  c.Add("Unigram with a token twice", unigram(R"([["a",0],["a",-1]])"));
  c.Add("Unigram with a score that is a text", unigram(R"([["a","b"]])"));
  c.Add("Unigram with an entry of three", unigram(R"([["a",0,1]])"));
  c.Add("Unigram with a score of 1e999", unigram(R"([["a",1e999]])"));
  c.Add("a map of characters that is cut",
        unigram(R"([["a",0]])",
                R"(,"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="})"));
  c.Add("a chain of Replace that makes 2^40 of a text",
        R"({"normalizer":{"type":"Sequence","normalizers":[)" +
            Repeat(R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"},)", 40) +
            R"({"type":"NFC"}]},"model":{"vocab":{"a":0},"merges":[]}})");
  c.Add("a decoder nobody knows",
        R"({"decoder":{"type":"CTC"},"model":{"vocab":{"a":0},"merges":[]}})");
  c.Add("a post-processor with a token that is not there",
        R"({"post_processor":{"type":"BertProcessing","sep":["x",7],"cls":["y",8]},)"
        R"("model":{"vocab":{"a":0},"merges":[]}})");
  c.Add("nested a million deep", Repeat("{\"model\":", 1000000));
  c.Add("a million brackets", Repeat("[", 1000000));
  c.Add("the model twice",
        R"({"model":{"vocab":{},"merges":[]},"model":{"vocab":{},"merges":[]}})");
  c.Add("broken UTF-8", json("{\"\xff\":0}", "[]"));
  c.Add("a lone surrogate", json(R"({"\ud800":0})", "[]"));
  c.Add("a token twice", json(R"({"a":0,"a":1})", "[]"));
  c.Add("an id twice", json(R"({"a":0,"b":0})", "[]"));
  c.Add("a negative id", json(R"({"a":-1})", "[]"));
  c.Add("an id of 2^24", json(R"({"a":16777216})", "[]"));
  c.Add("an id of 2^24 - 1 alone", json(R"({"a":16777215})", "[]"));
  c.Add("an id of 2^63", json(R"({"a":9223372036854775808})", "[]"));
  c.Add("an id of 1e300", json(R"({"a":1e300})", "[]"));
  c.Add("an id that is a fraction", json(R"({"a":0.5})", "[]"));
  c.Add("a vocabulary that is a list", json(R"(["a"])", "[]"));
  c.Add("a merge without a space", json(R"({"a":0,"b":1,"ab":2})", R"(["ab"])"));
  c.Add("a merge of three", json(R"({"a":0,"b":1,"ab":2})", R"([["a","b","c"]])"));
  c.Add("a merge of a number", json(R"({"a":0})", "[[1,2]]"));
  c.Add("a merge of what is no token", json(R"({"a":0})", R"(["a b"])"));
  c.Add("a merge to what is no token", json(R"({"a":0,"b":1})", R"(["a b"])"));
  c.Add("merges that are an object", json(R"({"a":0})", "{}"));
  c.Add("an added token that is empty", json("{}", "[]", R"([{"id":0,"content":""}])"));
  c.Add("an added token without an id", json("{}", "[]", R"([{"content":"x"}])"));
  c.Add("an added token far away", json("{}", "[]", R"([{"id":16000000,"content":"x"}])"));
  c.Add("two added tokens of one id",
        json("{}", "[]", R"([{"id":0,"content":"x"},{"id":0,"content":"y"}])"));
  c.Add("an added token with the id of another",
        json(R"({"a":0})", "[]", R"([{"id":0,"content":"x"}])"));
  c.Add("an added token of a megabyte",
        json("{}", "[]", R"([{"id":0,"content":")" + Repeat("x", 1 << 20) + R"("}])"));
  c.Add("an unknown token that is none",
        R"({"model":{"type":"BPE","unk_token":"<unk>","vocab":{"a":0},"merges":[]}})");
  c.Add("an unknown token that is a number",
        R"({"model":{"type":"BPE","unk_token":7,"vocab":{"a":0},"merges":[]}})");
  c.Add("a chain of normalizers without a list",
        R"({"normalizer":{"type":"Sequence"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})");
  c.Add("normalizers within normalizers",
        R"({"normalizer":)" + Repeat(R"({"type":"Sequence","normalizers":[)", 40) +
            Repeat("]}", 40) + R"(,"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})");
  c.Add(
      "a pattern that explodes",
      json(
          "{}", "[]", "[]",
          R"({"type":"Split","pattern":{"Regex":"(a*)*b"},"behavior":"Isolated","invert":false})"));
  c.Add("a pre-tokenizer that is a list", json("{}", "[]", "[]", "[1]"));
  c.Add("a sequence within sequences",
        json("{}", "[]", "[]",
             Repeat(R"({"type":"Sequence","pretokenizers":[)", 20000) + Repeat("]}", 20000)));
  c.Add("eight megabytes of empty arrays", json("{}", "[" + Repeat("[],", 2600000) + "[]]"));
  c.Add("eight megabytes of numbers", json("{}", "[" + Repeat("0,", 4000000) + "0]"));
  c.Add("a text of eight megabytes that does not end", "{\"model\":\"" + Repeat("x", 8 << 20));
  c.Add("a million open objects in an array", "[" + Repeat("{\"a\":1},", 1000000));
  return c.Take();
}

std::vector<Malicious> ConfigCorpus() {
  Corpus c("config.json");
  const std::string good = WellFormed(Kind::kConfig).at("config.json");
  const auto with = [&](const std::string& name, const std::string& key, const std::string& value) {
    std::string text = good;
    const size_t at = text.find("\"" + key + "\":") + key.size() + 3;
    text.replace(at, text.find_first_of(",}", at) - at, value);
    c.Add(name, text);
  };
  for (const char* key :
       {"num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "vocab_size", "max_position_embeddings"}) {
    with(std::string(key) + " = 0", key, "0");
    with(std::string(key) + " = -1", key, "-1");
    with(std::string(key) + " = 2^63 - 1", key, "9223372036854775807");
    with(std::string(key) + " = 2^64 - 1", key, "18446744073709551615");
    with(std::string(key) + " = 1e300", key, "1e300");
    with(std::string(key) + " as a text", key, "\"4\"");
  }
  with("heads that do not divide", "num_attention_heads", "5");
  with("KV heads that do not divide", "num_key_value_heads", "3");
  with("a million layers", "num_hidden_layers", "1000000");
  with("a rotary base of 0", "rope_theta", "0");
  with("a rotary base of -1", "rope_theta", "-1");
  with("a rotary base of 1e400", "rope_theta", "1e400");
  with("a norm of 0", "rms_norm_eps", "0");
  with("an end token of -1", "eos_token_id", "-1");
  with("an end token of 2^40", "eos_token_id", "1099511627776");
  with("an end token outside the vocabulary", "eos_token_id", "100");
  with("a begin token of 2^40", "bos_token_id", "1099511627776");
  with("a family nobody computes", "model_type", "\"mamba\"");
  with("another activation", "hidden_act", "\"relu\"");
  c.Add("empty", "");
  c.Add("a list", "[]");
  c.Add("a million brackets", Repeat("[", 1000000 - 8));
  c.Add("more than a megabyte", "{\"a\":\"" + Repeat("x", 2 << 20) + "\"}");
  c.Add("a megabyte of numbers", "{\"a\":[" + Repeat("0,", 500000) + "0]}");
  c.Add("a key twice", "{\"hidden_size\":4," + good.substr(1));
  c.Add("an end token outside the vocabulary, in the other file",
        Files{{"config.json", good}, {"generation_config.json", R"({"eos_token_id":[5000000]})"}});
  c.Add("the other file nested a million deep",
        Files{{"config.json", good}, {"generation_config.json", Repeat("[", 900000)}});
  return c.Take();
}

std::vector<Malicious> AdapterCorpus() {
  Corpus c("adapter_config.json");
  const auto with = [](const std::string& rest) {
    return R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj"])" + rest + "}";
  };
  c.Add("empty", "");
  c.Add("null", "null");
  c.Add("a list", "[]");
  c.Add("no keys", "{}");
  c.Add("a million brackets", Repeat("[", 1000000));
  c.Add("nested a million deep", Repeat("{\"a\":", 1000000));
  c.Add("not UTF-8", with(",\"x\":\"\xff\""));
  c.Add("the rank twice", with(R"(,"r":9)"));
  c.Add("another method", R"({"peft_type":"IA3","target_modules":["q_proj"]})");
  const auto rank = [&](const std::string& name, const std::string& value) {
    c.Add(name,
          R"({"peft_type":"LORA","lora_alpha":16,"target_modules":["q_proj"],"r":)" + value + "}");
  };
  rank("rank 0", "0");
  rank("rank -1", "-1");
  rank("rank 2^63", "9223372036854775808");
  rank("rank 1e300", "1e300");
  rank("rank as a text", "\"8\"");
  rank("no rank", "null");
  c.Add("alpha beyond a number",
        R"({"peft_type":"LORA","r":8,"lora_alpha":1e999,"target_modules":["q_proj"]})");
  c.Add("alpha NaN", R"({"peft_type":"LORA","r":8,"lora_alpha":NaN,"target_modules":["q_proj"]})");
  c.Add("alpha as a text",
        R"({"peft_type":"LORA","r":8,"lora_alpha":"16","target_modules":["q_proj"]})");
  c.Add("no modules", R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":[]})");
  c.Add("an alpha that no float holds",
        R"({"peft_type":"LORA","r":8,"lora_alpha":1e308,"target_modules":["q_proj"]})");
  c.Add("modules that are numbers",
        R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":[1]})");
  c.Add("modules in an object",
        R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":{"q_proj":1}})");
  c.Add("trained biases", with(R"(,"bias":"all")"));
  c.Add("two megabytes of keys", with("," + Repeat("\"k\":0,", 300000) + "\"z\":0"));
  const auto tasks = [&](const std::string& name, const std::string& of_tasks) {
    c.Add(name, R"({"peft_type":"PLUMB_TASKS","r":8,"lora_alpha":16,"target_modules":["q_proj"])" +
                    of_tasks + "}");
  };
  tasks("adapters with tasks and none named", "");
  tasks("tasks as a list", R"(,"plumb_tasks":["a"])");
  tasks("no adapters", R"(,"plumb_tasks":{"adapters":0,"tasks":["a"],"task_tokens":0})");
  tasks("2^63 adapters",
        R"(,"plumb_tasks":{"adapters":9223372036854775808,"tasks":["a"],"task_tokens":0})");
  tasks("tokens as a text", R"(,"plumb_tasks":{"adapters":2,"tasks":["a"],"task_tokens":"0"})");
  tasks("more tokens than a task has",
        R"(,"plumb_tasks":{"adapters":2,"tasks":["a"],"task_tokens":257})");
  tasks("a task twice", R"(,"plumb_tasks":{"adapters":2,"tasks":["a","a"],"task_tokens":0})");
  tasks("a task without a name", R"(,"plumb_tasks":{"adapters":2,"tasks":[""],"task_tokens":0})");
  tasks("a task that is a number", R"(,"plumb_tasks":{"adapters":2,"tasks":[1],"task_tokens":0})");
  tasks("a hundred thousand tasks", R"(,"plumb_tasks":{"adapters":2,"task_tokens":0,"tasks":[)" +
                                        Repeat("\"a\",", 100000) + "\"b\"]}");
  return c.Take();
}

}  // namespace plumb::fuzz
