// Chat templates, records, dataset files, recipes and manifests that lie; the tables over all
// kinds.
#include <zlib.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "common/base/json/strict_json.h"
#include "common/record/codec.h"
#include "common/record/group_body.h"
#include "common/record/schema/trajectory_generated.h"
#include "learner/update/checkpoint_manifest.h"
#include "malicious_parts.h"
#include "parquet_seeds.h"
#include "targets.h"
#include "tests/testing/body_parts.h"
#include "tests/testing/gguf_maker.h"

namespace plumb::fuzz {
namespace {

// `size` bytes of `byte` behind `text`, packed; made piece by piece.
std::string Bomb(const std::string& text, size_t size, char byte) {
  z_stream z{};
  PLUMB_CHECK(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out, buffer(size_t{1} << 16, '\0');
  const auto pack = [&](const std::string& piece, int flush) {
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(piece.data()));
    z.avail_in = static_cast<uInt>(piece.size());
    do {
      z.next_out = reinterpret_cast<Bytef*>(buffer.data());
      z.avail_out = static_cast<uInt>(buffer.size());
      deflate(&z, flush);
      out.append(buffer, 0, buffer.size() - z.avail_out);
    } while (z.avail_out == 0);
  };
  pack(text, Z_NO_FLUSH);
  const std::string piece(size_t{1} << 20, byte);
  for (size_t n = 0; n < size; n += piece.size()) pack(piece, Z_NO_FLUSH);
  pack("", Z_FINISH);
  deflateEnd(&z);
  return out;
}

TrajectoryGroup Group() {
  TrajectoryGroup g;
  g.run_id = "run";
  g.actor = "actor-0";
  g.lease.num_samples = 1;
  g.lease.prompt.tokens = {1, 2};
  g.lease.prompt.text = "p";
  g.policy = {3, "digest"};
  Trajectory t;
  t.tokens = {1, 2, 7};
  t.segments = {{Origin::kPrompt, 0, 2}, {Origin::kPolicy, 2, 3}};
  t.loss_mask = {0, 0, 1};
  t.logprobs = {0, 0, -0.5f};
  t.policy_versions = {-1, -1, 3};
  t.completion = "a";
  t.rewards = {{"correct", 1, 1, RewardScope::kTrajectory, 0, "sha"}};
  t.reward = 1;
  t.scored = true;
  g.trajectories = {t};
  return g;
}

// Many messages in few bytes: offsets that all point at one.
std::string SharedOffsets(size_t text, size_t times) {
  namespace fb = flatbuffers;
  fb::FlatBufferBuilder builder;
  builder.ForceDefaults(true);
  const auto large = builder.CreateString(std::string(text, 'x'));
  const auto empty = builder.CreateString("");
  const auto message = wire::CreateMessage(builder, empty, large);
  const auto messages =
      builder.CreateVector(std::vector<fb::Offset<wire::Message>>(times, message));
  const auto tokens = builder.CreateVector(std::vector<int32_t>{});
  builder.Finish(wire::CreatePrompt(builder, empty, 0, empty, messages, empty, empty, 1, tokens),
                 "PPR1");
  return std::string(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
}

std::string Manifest(const std::string& body, const std::string& format = "1") {
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(body.data(), body.size())));
  return R"({"format":)" + format + R"(,"body":)" + body + R"(,"body_sha256":")" +
         hash.HexDigest() + "\"}";
}

std::string GoodBody() {
  learner::CheckpointManifest m;
  m.files = {{"model/config.json", "aa"}};
  m.state.emplace();
  m.state->policy = {0, "digest"};
  return nlohmann::ordered_json::parse(learner::WriteManifest(m)).at("body").dump();
}

const char kGoodRecipe[] = "configs/toy_grpo.toml";

}  // namespace

std::vector<Malicious> TemplateCorpus() {
  Corpus c("chat_template.jinja");
  c.Add("a loop over ten million", "{% for i in range(10000000) %}x{% endfor %}");
  c.Add("loops within loops",
        Repeat("{% for i in range(1000) %}", 6) + "x" + Repeat("{% endfor %}", 6));
  c.Add("a text doubled 100 times",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% "
        "endfor %}{{ ns.s }}");
  c.Add("a text added to itself 100 times",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}{{ ns.s }}");
  c.Add("a list doubled 100 times",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}{{ ns.s }}");
  c.Add("a text times 10^12", "{{ 'x' * 1000000000000 }}");
  c.Add("a list times 2^62", "{{ [1] * 4611686018427387904 }}");
  c.Add("a text times itself by replace",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', "
        "ns.s) %}{% endfor %}{{ ns.s }}");
  c.Add("a text that join doubles",
        "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = [ns.s, "
        "ns.s]|join(ns.s) %}{% endfor %}{{ ns.s }}");
  c.Add("an indent of a billion", "{{ ('a\\n' * 1000)|indent(1000000000) }}");
  c.Add("a list that holds itself deeper and deeper",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% "
        "endfor %}{{ ns.s }}");
  c.Add("a namespace that holds itself",
        "{% set ns = namespace() %}{% set ns.s = ns %}{{ ns|tojson }}{{ ns.s.s.s }}{{ ns == ns "
        "}}{% for i in range(1000000) %}{{ ns|string }}{% endfor %}");
  c.Add("a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  c.Add("two macros that call each other twice",
        "{% macro f(n) %}{{ g(n) }}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n) }}{{ f(n) }}{% "
        "endmacro %}{{ f(1) }}");
  c.Add("a power without end", "{{ 10 ** 10 ** 10 ** 10 }}");
  c.Add("the smallest number over -1", "{{ (-9223372036854775807 - 1) // -1 }}");
  c.Add("a number past 63 bits", "{{ 9223372036854775807 + 1 }}");
  c.Add("a range of 2^63", "{{ range(9223372036854775807)|list|length }}");
  c.Add("a range that goes nowhere", "{{ range(0, 10, 0)|list }}");
  c.Add("100,000 brackets", "{{ " + Repeat("(", 100000) + "1" + Repeat(")", 100000) + " }}");
  c.Add("100,000 open lists", "{{ " + Repeat("[", 100000));
  c.Add("100,000 nots", "{{ " + Repeat("not ", 100000) + "1 }}");
  c.Add("100,000 minus signs", "{{ " + Repeat("-", 100000) + "1 }}");
  c.Add("100,000 filters in a row", "{{ 1" + Repeat("|string", 100000) + " }}");
  c.Add("100,000 attributes in a row", "{{ messages" + Repeat(".a", 100000) + " }}");
  c.Add("100,000 additions", "{{ 1" + Repeat("+1", 100000) + " }}");
  c.Add("100,000 blocks within each other",
        Repeat("{% if 1 %}", 100000) + Repeat("{% endif %}", 100000));
  c.Add("a block that does not end", "{% if 1 %}x");
  c.Add("a tag that does not end", "{{ 'x");
  c.Add("a comment that does not end", "{# x");
  c.Add("tags of other files", "{% include '/etc/passwd' %}");
  c.Add("a way to Python", "{{ ''.__class__.__mro__[1].__subclasses__() }}");
  c.Add("a string of a megabyte of escapes", "{{ '" + Repeat("\\u0000", 200000) + "'");
  return c.Take();
}

std::vector<Malicious> RecordCorpus() {
  Corpus c("record");
  const std::string good = GroupBody::Seal(Group()).bytes().str();
  constexpr size_t kHead = 8;  // sum and kind, in front of the record
  c.Add("empty", "");
  c.Add("eight bytes", "PTG1PTG1");
  c.Add("zeros", std::string(1000, '\0'));
  c.Add("ones", std::string(1000, '\xff'));
  c.Add("another record", Encode(Group().lease));
  c.Add("half of one", good.substr(0, good.size() / 2));
  c.Add("all but a byte", good.substr(0, good.size() - 1));
  const auto put = [&](const std::string& name, size_t at, uint32_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + kHead + at, &value, 4);
    c.Add(name, bytes);
  };
  put("a root past the end", 0, static_cast<uint32_t>(good.size()));
  put("a root of 2^32 - 1", 0, ~uint32_t{0});
  put("a root of 0", 0, 0);
  put("another tag", 4, 0x31323334);
  // Every aligned word of the table's head as a length or an offset beyond everything.
  uint32_t root = 0;
  std::memcpy(&root, good.data() + kHead, 4);
  put("a table without its fields", root, 0x7FFFFFFF);
  for (size_t at = root + 4; kHead + at + 4 <= good.size() && at < root + 44; at += 8) {
    put("2^31 at byte " + std::to_string(at - root) + " of the table", at, 0x80000000);
    put("2^32 - 4 at byte " + std::to_string(at - root) + " of the table", at, 0xFFFFFFFC);
  }
  const auto broken = [&](const std::string& name,
                          const std::function<void(plumb::testing::BodyParts&)>& change) {
    plumb::testing::BodyParts parts;
    change(parts);
    c.Add(name, parts.Bytes());
  };
  broken("a log-prob that is NaN", [](auto& p) { p.logprobs[2] = __builtin_nanf(""); });
  broken("a log-prob above 0", [](auto& p) { p.logprobs[2] = 1; });
  broken("a negative token", [](auto& p) { p.tokens[2] = -1; });
  broken("lists of different lengths", [](auto& p) { p.logprobs.pop_back(); });
  broken("a loss mask of 2^33 tokens", [](auto& p) { p.mask_runs = {~uint32_t{0}, ~uint32_t{0}}; });
  broken("a segment past the end", [](auto& p) { p.segments[1] = {1, 1 << 30}; });
  broken("an origin nobody knows", [](auto& p) { p.segments[1] = {99, 3}; });
  broken("a prompt that is not the group's", [](auto& p) { p.segments[0] = {0, 3}; });
  broken("a policy of version -5", [](auto& p) { p.policy_version = -5; });
  broken("experts of 65,535 layers", [](auto& p) {
    p.form = {65535, 65535, 65535};
    p.experts = {1, 2, 3, 4};
  });
  broken("experts of nothing", [](auto& p) {
    p.form = {1, 0, 0};
    p.prompt_experts = {1};
  });
  broken("an expert beyond the last", [](auto& p) {
    p.form = {1, 1, 3};
    p.experts = {0, 1, 2, 3};
  });
  broken("ten thousand answers in one", [](auto& p) { p.answers = 10'000; });
  return c.Take();
}

std::vector<Malicious> PromptCorpus() {
  Corpus c("record");
  c.Add("messages that would unpack to 2 GB", SharedOffsets(100000, 20000));
  c.Add("messages that would unpack to 25 GB", SharedOffsets(1000000, 25000));
  c.Add("a million empty messages in one", SharedOffsets(0, 1000000));
  return c.Take();
}

std::vector<Malicious> RowCorpus() {
  Corpus c("data.jsonl");
  c.Add("empty", "");
  c.Add("blank lines", Repeat(" \n", 100000));
  c.Add("a million open brackets", Repeat("[", 1000000));
  c.Add("a million open objects", Repeat("{\"prompt\":", 1000000));
  c.Add("a prompt within 100,000 lists",
        "{\"prompt\":" + Repeat("[", 100000) + "1" + Repeat("]", 100000) + "}");
  c.Add("another column within 100,000 lists",
        "{\"prompt\":\"p\",\"x\":" + Repeat("[", 100000) + "1" + Repeat("]", 100000) + "}");
  c.Add("the prompt twice", R"({"prompt":"a","prompt":"b"})");
  c.Add("the prompt twice, once escaped", R"({"prompt":"a","pr\u006fmpt":"b"})");
  c.Add("a lone surrogate", R"({"prompt":"\ud800"})");
  c.Add("a lone surrogate as bytes", "{\"prompt\":\"\xed\xa0\x80\"}");
  c.Add("overlong UTF-8", "{\"prompt\":\"\xc0\xaf\"}");
  c.Add("NUL between rows", std::string("{\"prompt\":\"a\"\0}", 15));
  c.Add("NULs alone", std::string(100000, '\0'));
  c.Add("UTF-16", std::string("\xff\xfe{\0\"\0p\0", 8));
  c.Add("a number of a megabyte", "{\"prompt\":" + Repeat("9", 1 << 20) + "}");
  c.Add("an exponent of 10^9", R"({"prompt":1e1000000000})");
  c.Add("a text that does not end", "{\"prompt\":\"" + Repeat("x", 4 << 20));
  c.Add("a row longer than 16 MB", [] { return "{\"prompt\":\"" + Repeat("x", 17 << 20) + "\"}"; });
  c.Add("an array that does not end", "[" + Repeat("{\"x\":1},", 10000));
  c.Add("an array with a rest", "[{\"x\":1}] [");
  c.Add("an array of a million commas", "[" + Repeat(",", 1000000));
  c.Add("an array element longer than 16 MB", [] { return "[\"" + Repeat("x", 17 << 20) + "\"]"; });
  c.Add("an array of closing braces", "[" + Repeat("}", 1000000));
  c.Add("a byte order mark alone", "\xEF\xBB\xBF");
  c.Add("10,000 columns alike but the last", [] {
    std::string row = "{";
    for (int i = 0; i < 10000; ++i) row += "\"" + std::to_string(i) + "\":0,";
    return row + "\"0\":0}";
  });
  c.Add("a message of a role nobody has", R"({"prompt":[{"role":"root","content":"x"}]})");
  const std::string row = "{\"prompt\":\"p\"}\n";
  const std::string packed = Bomb(Repeat(row, 1000), 0, 'x');
  c.Add("a gzip header alone", "\x1f\x8b\x08");
  c.Add("a gzip cut in the middle", packed.substr(0, packed.size() / 2));
  c.Add("a gzip cut before its sum", packed.substr(0, packed.size() - 8));
  std::string flipped = packed;
  flipped[packed.size() / 2] = static_cast<char>(flipped[packed.size() / 2] ^ 0x40);
  c.Add("a gzip with a flipped bit", flipped);
  std::string wrong_sum = packed;
  wrong_sum[packed.size() - 6] = static_cast<char>(wrong_sum[packed.size() - 6] ^ 1);
  c.Add("a gzip with another sum", wrong_sum);
  c.Add("a gzip of 256 MB of zeros", [] { return Bomb("", size_t{256} << 20, '\0'); });
  c.Add("a gzip of 256 MB in a text",
        [] { return Bomb("{\"prompt\":\"", size_t{256} << 20, 'x'); });
  c.Add("a gzip of 256 MB of line ends", [] { return Bomb("", size_t{256} << 20, '\n'); });
  c.Add("Parquet without a footer", "PAR1" + std::string(100, 'x'));
  c.Add("Parquet's magic alone", "PAR1");
  c.Add("Parquet's magic twice", "PAR1PAR1");
  c.Add("Parquet that is encrypted", "PARE" + std::string(100, 'x'));
  c.Add("Parquet with a footer of 2^32 - 1",
        "PAR1" + std::string(100, 'x') + std::string(4, '\xff') + "PAR1");
  c.Add("Parquet with a footer of nonsense",
        "PAR1" + std::string(1000, '\x15') + std::string("\xe8\x03\0\0", 4) + "PAR1");
  const std::string table = ParquetFiles().front();
  if (table.size() > 100) {
    c.Add("Parquet cut in the middle", table.substr(0, table.size() / 2));
    c.Add("Parquet whose footer claims a byte more", [table] {
      std::string bytes = table;
      ++bytes[bytes.size() - 8];
      return bytes;
    });
    // Thrift of the footer: the largest numbers where versions, counts, groups and sizes are. What
    // follows is for people.
    uint32_t footer = 0;
    std::memcpy(&footer, table.data() + table.size() - 8, 4);
    for (size_t i = 4; i < footer && i < 160; i += 36) {
      std::string bytes = table;
      bytes.replace(bytes.size() - 8 - footer + i, 4, "\xff\xff\xff\xff");
      c.Add("Parquet with a footer that lies at byte " + std::to_string(i), bytes);
    }
  }
  return c.Take();
}

std::vector<Malicious> RecipeCorpus() {
  Corpus c("recipe.toml");
  const std::string good = SourceFile(kGoodRecipe);
  c.Add("empty", "");
  c.Add("not TOML", "{\"run\": 1}");
  c.Add("arrays 100,000 deep", "a = " + Repeat("[", 100000));
  c.Add("tables 100,000 deep", "a = " + Repeat("{a=", 100000));
  c.Add("a key of a million dots", [] { return Repeat("a.", 1000000) + "a = 1"; });
  c.Add("a key of a million dots in a table",
        [] { return "a = {" + Repeat("'a' . ", 600000) + "a = 1}"; });
  c.Add("a header of 100,000 dots", "[" + Repeat("a.", 100000) + "a]");
  c.Add("letters beyond ASCII where blanks may stand", "[run]\n\u00e9 = 1\nsteps \u0436= 1\n");
  c.Add("a header that begins with a bracket", "[(a]\nx = 1\n");
  c.Add("a table twice", good + "\n[run]\nsteps = 1\n");
  c.Add("a key twice", "[run]\nsteps = 1\nsteps = 2\n");
  c.Add("a number past 63 bits", "[run]\nsteps = 9223372036854775808\n");
  c.Add("steps of -1", "[run]\nsteps = -1\n" + good);
  c.Add("a seed of -1", "[run]\nseed = -1\n");
  c.Add("a temperature that is NaN", "[rollout]\ntemperature = nan\n");
  c.Add("a temperature that is infinite", "[rollout]\ntemperature = inf\n");
  c.Add("a string of four megabytes that does not end",
        "[run]\nout = \"" + Repeat("x", (4 << 20) - 100));
  c.Add("more than four megabytes", [] { return "# " + Repeat("x", 5 << 20); });
  c.Add("broken UTF-8", "[run]\nout = \"\xff\"\n");
  c.Add("NUL", std::string("[run]\nout = \"\0\"\n", 16));
  c.Add("a wrong type for every key", "run = 1\nmodel = 1\ndata = 1\nreward = 1\n");
  c.Add("100,000 unknown keys", [] {
    std::string text = "[run]\n";
    for (int i = 0; i < 100000; ++i) text += "unknown" + std::to_string(i) + " = 1\n";
    return text;
  });
  c.Add("a key of a megabyte", "[run]\n" + Repeat("x", 1 << 20) + " = 1\n");
  c.Add("100,000 reward parts", "[reward]\n" + Repeat("[[reward.parts]]\n", 100000));
  return c.Take();
}

std::vector<Malicious> ManifestCorpus() {
  Corpus c("manifest.json");
  const std::string good = GoodBody();
  const auto with = [&](const std::string& name, const std::string& from, const std::string& to) {
    std::string body = good;
    body.replace(body.find(from), from.size(), to);
    // The hash is right of what a reader sees, so that the value itself is what is refused.
    try {
      body = ParseStrictJson(body, "body").dump();
    } catch (const Error&) {
    }
    c.Add(name, Manifest(body));
  };
  c.Add("empty", "");
  c.Add("a list", "[]");
  c.Add("a million brackets", Repeat("[", 1000000));
  c.Add("a body nested a million deep", R"({"format":1,"body":)" + Repeat("{\"a\":", 1000000));
  c.Add("a body nested 100 deep", Manifest(Repeat("[", 100) + Repeat("]", 100)));
  c.Add("format 2", Manifest(good, "2"));
  c.Add("format -1", Manifest(good, "-1"));
  c.Add("format 1e300", Manifest(good, "1e300"));
  c.Add("format as a text", Manifest(good, "\"1\""));
  c.Add("no body", R"({"format":1})");
  c.Add("a body that is a list", Manifest("[]"));
  c.Add("another hash", R"({"format":1,"body":)" + good + R"(,"body_sha256":"00"})");
  c.Add("a hash that is a number", R"({"format":1,"body":)" + good + R"(,"body_sha256":0})");
  c.Add("the body twice", R"({"body":{},)" + Manifest(good).substr(1));
  with("no files", "\"files\":", "\"Files\":");
  with("files that are a list", R"("files":{"model/config.json":"aa"})", "\"files\":[]");
  with("a file without a hash", "\"aa\"", "7");
  with("a step of -1", "\"step\":0", "\"step\":-1");
  with("a step of 2^63", "\"step\":0", "\"step\":9223372036854775808");
  with("a step of 1e300", "\"step\":0", "\"step\":1e300");
  with("a step that is a text", "\"step\":0", "\"step\":\"0\"");
  with("a seed of -1", "\"seed\":0", "\"seed\":-1");
  with("a cursor of -1", "\"store_cursor\":0", "\"store_cursor\":-1");
  with("a policy of version -2", "\"policy_version\":0", "\"policy_version\":-2");
  with("a digest that is a number", "\"digest\"", "7");
  with("models that are a list", "\"models\":{}", "\"models\":[1]");
  with("a model without counters", "\"models\":{}", "\"models\":{\"critic\":{}}");
  with("a time that is a text", "\"wall_s\":0.0", "\"wall_s\":\"0\"");
  return c.Take();
}

const char* KindName(Kind kind) {
  static constexpr std::array kNames = {"Safetensors",  "Gguf",     "Tokenizer", "Config",
                                        "ChatTemplate", "Record",   "Prompt",    "Rows",
                                        "Recipe",       "Manifest", "Adapter"};
  return kNames.at(static_cast<size_t>(kind));
}

const char* FileName(Kind kind) {
  static constexpr std::array kNames = {"model.safetensors",
                                        "model.gguf",
                                        "tokenizer.json",
                                        "config.json",
                                        "chat_template.jinja",
                                        "record",
                                        "record",
                                        "data.jsonl",
                                        "recipe.toml",
                                        "manifest.json",
                                        "adapter_config.json"};
  return kNames.at(static_cast<size_t>(kind));
}

std::vector<Malicious> CorpusOf(Kind kind) {
  switch (kind) {
    case Kind::kSafetensors: return SafetensorsCorpus();
    case Kind::kGguf: return GgufCorpus();
    case Kind::kTokenizer: return TokenizerCorpus();
    case Kind::kConfig: return ConfigCorpus();
    case Kind::kTemplate: return TemplateCorpus();
    case Kind::kRecord: return RecordCorpus();
    case Kind::kPrompt: return PromptCorpus();
    case Kind::kRows: return RowCorpus();
    case Kind::kRecipe: return RecipeCorpus();
    case Kind::kManifest: return ManifestCorpus();
    case Kind::kAdapter: return AdapterCorpus();
  }
  return {};
}

Files WellFormed(Kind kind) {
  switch (kind) {
    case Kind::kSafetensors: {
      const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
      return {{FileName(kind), testing::Raw<uint64_t>(header.size()) + header + "data"}};
    }
    case Kind::kGguf: return {{FileName(kind), testing::TinyGguf().File()}};
    case Kind::kTokenizer:
      return {
          {FileName(kind),
           R"({"added_tokens":[{"id":3,"content":"<x>"}],"normalizer":null,"pre_tokenizer":null,)"
           R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})"}};
    case Kind::kConfig:
      return {
          {FileName(kind),
           R"({"model_type":"llama","hidden_act":"silu","num_hidden_layers":2,"hidden_size":16,"num_attention_heads":4,)"
           R"("num_key_value_heads":2,"intermediate_size":32,"vocab_size":100,"max_position_embeddings":64,)"
           R"("rms_norm_eps":1e-5,"rope_theta":10000.0,"bos_token_id":1,"eos_token_id":2})"}};
    case Kind::kTemplate:
      return {{FileName(kind), "{% for m in messages %}{{ m.content * 2 }}{% endfor %}"}};
    case Kind::kRecord: return {{FileName(kind), GroupBody::Seal(Group()).bytes().str()}};
    case Kind::kPrompt: return {{FileName(kind), Encode(Group().lease.prompt)}};
    case Kind::kRows: return {{FileName(kind), Bomb("{\"prompt\":\"p\"}\n", 0, 'x')}};
    case Kind::kRecipe: return {{FileName(kind), SourceFile(kGoodRecipe)}};
    case Kind::kManifest: return {{FileName(kind), Manifest(GoodBody())}};
    case Kind::kAdapter:
      return {{FileName(kind),
               R"({"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj"]})"}};
  }
  return {};
}

}  // namespace plumb::fuzz
