// The server over real sockets: what it answers is what the engine says, whatever way it is asked.
#include "run/serve/api_server.h"

#include <thread>

#include "tests/run/serve/serving.h"

namespace plumb::run {
namespace {

using nlohmann::json;
using testing::Get;
using testing::HttpReply;
using testing::Post;

class ApiServerTest : public Serving {};

TEST_F(ApiServerTest, ACompletionIsWhatTheEngineSays) {
  Open(Endless());
  const ModelFolder& model = models_->folder();
  const HttpReply reply = Complete({{"model", "model"},
                                    {"prompt", "12+3="},
                                    {"max_tokens", 20},
                                    {"n", 3},
                                    {"seed", 7},
                                    {"logprobs", 0},
                                    {"temperature", 0.8},
                                    {"top_p", 0.9},
                                    {"return_token_ids", true}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json out = reply.json();
  EXPECT_EQ(out["object"], "text_completion");
  EXPECT_EQ(out["model"], "model");
  const std::vector<int32_t> tokens = model.EncodeText("12+3=");
  const actor::GenerateResult direct =
      Direct(model, tokens, 7, 3, 20, {.temperature = 0.8f, .top_p = 0.9f});
  ASSERT_EQ(out["choices"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const json& choice = out["choices"][i];
    const actor::GeneratedSample& sample = direct.samples[i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["prompt_token_ids"].get<std::vector<int32_t>>(), tokens);
    EXPECT_EQ(choice["token_ids"].get<std::vector<int32_t>>(), sample.tokens);
    EXPECT_EQ(choice["text"], model.tokenizer->Decode(sample.tokens, true));
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(choice["logprobs"]["token_logprobs"].get<std::vector<float>>(), sample.logprobs);
    EXPECT_EQ(choice["logprobs"]["tokens"].size(), 20u);
    EXPECT_EQ(choice["logprobs"]["text_offset"][0], 0);
  }
  EXPECT_EQ(out["usage"]["prompt_tokens"], tokens.size());
  EXPECT_EQ(out["usage"]["completion_tokens"], 60);
  EXPECT_EQ(out["usage"]["total_tokens"], tokens.size() + 60);
}

TEST_F(ApiServerTest, AChatGoesThroughTheTemplate) {
  Open(Endless());
  const ModelFolder& model = models_->folder();
  const json messages = {{{"role", "system"}, {"content", "8"}},
                         {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "1+1"}}}}},
                         {{"role", "assistant"}, {"content", "2"}},
                         {{"role", "user"}, {"content", "2+2"}}};
  const HttpReply reply = Chat({{"messages", messages},
                                {"max_completion_tokens", 12},
                                {"seed", 3},
                                {"logprobs", true},
                                {"return_token_ids", true}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json out = reply.json();
  const std::vector<int32_t> tokens = model.tokenizer->Encode("<bos>8=1+1=2<eos>2+2=");
  EXPECT_EQ(out["prompt_token_ids"].get<std::vector<int32_t>>(), tokens);
  const actor::GeneratedSample sample = Direct(model, tokens, 3, 1, 12).samples[0];
  const json& choice = out["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], model.tokenizer->Decode(sample.tokens, true));
  EXPECT_EQ(choice["token_ids"].get<std::vector<int32_t>>(), sample.tokens);
  ASSERT_EQ(choice["logprobs"]["content"].size(), 12u);
  for (size_t i = 0; i < 12; ++i)
    EXPECT_EQ(choice["logprobs"]["content"][i]["logprob"].get<float>(), sample.logprobs[i]);
  EXPECT_EQ(out["object"], "chat.completion");
}

TEST_F(ApiServerTest, AStreamSaysTheSameAsAWhole) {
  Open({.max_positions = 400, .chat_template = true});  // with an end token
  for (const bool chat : {false, true}) {
    json body = {{"max_tokens", 60}, {"n", 4}, {"seed", 11}, {"return_token_ids", true}};
    if (chat) body["messages"] = {{{"role", "user"}, {"content", "7-3"}}};
    else body["prompt"] = "7-3=";
    body["logprobs"] = chat ? json(true) : json(0);
    const std::string path = chat ? "/v1/chat/completions" : "/v1/completions";
    const json whole = Post(port(), path, body).json();
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    const HttpReply reply = Post(port(), path, body);
    ASSERT_EQ(reply.status, 200);
    EXPECT_NE(reply.head.find("text/event-stream"), std::string::npos);
    EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n")) << reply.body;
    std::vector<std::string> texts(4), finish(4);
    std::vector<std::vector<int32_t>> tokens(4);
    std::vector<std::vector<float>> logprobs(4);
    const std::vector<json> events = reply.events();
    for (const json& event : events) {
      if (event["choices"].empty()) continue;
      EXPECT_TRUE(event["usage"].is_null());
      const json& choice = event["choices"][0];
      const size_t i = choice["index"];
      EXPECT_TRUE(finish[i].empty()) << "behind the last of it";
      texts[i] += chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
      if (chat) {
        EXPECT_EQ(choice["delta"].contains("role"), tokens[i].empty());
      }
      for (const json& token : choice["token_ids"]) tokens[i].push_back(token);
      if (chat) {
        for (const json& one : choice["logprobs"]["content"]) logprobs[i].push_back(one["logprob"]);
      } else {
        for (const json& one : choice["logprobs"]["token_logprobs"]) logprobs[i].push_back(one);
      }
      if (!choice["finish_reason"].is_null()) finish[i] = choice["finish_reason"];
    }
    EXPECT_EQ(events.back()["usage"], whole["usage"]);
    for (size_t i = 0; i < 4; ++i) {
      const json& choice = whole["choices"][i];
      const json& text = chat ? choice["message"]["content"] : choice["text"];
      EXPECT_EQ(texts[i], text.get<std::string>());
      EXPECT_EQ(finish[i], choice["finish_reason"].get<std::string>());
      EXPECT_EQ(tokens[i], choice["token_ids"].get<std::vector<int32_t>>());
      std::vector<float> all;
      if (chat) {
        for (const json& one : choice["logprobs"]["content"]) all.push_back(one["logprob"]);
      } else {
        all = choice["logprobs"]["token_logprobs"].get<std::vector<float>>();
      }
      EXPECT_EQ(logprobs[i], all);
      EXPECT_EQ(all.size(), tokens[i].size());
    }
  }
}

TEST_F(ApiServerTest, ASeedSaysTheSameAgain) {
  Open(Endless());
  const auto text = [&](json more) {
    json body = {{"prompt", "5+5="}, {"max_tokens", 30}};
    body.update(more);
    return Complete(body).json()["choices"][0]["text"].get<std::string>();
  };
  EXPECT_EQ(text({{"seed", 1}}), text({{"seed", 1}}));
  EXPECT_NE(text({{"seed", 1}}), text({{"seed", 2}}));
  EXPECT_NE(text(json::object()), text(json::object()));
  EXPECT_EQ(text({{"temperature", 0}}), text({{"temperature", 0}}));
}

TEST_F(ApiServerTest, PromptsMayBeSeveralAndTokens) {
  Open(Endless());
  const ModelFolder& model = models_->folder();
  const std::vector<int32_t> one = model.EncodeText("1+1="), two = model.EncodeText("2+2=");
  const json texts = Complete({{"prompt", {"1+1=", "2+2="}}, {"n", 2}, {"seed", 4}}).json();
  const json tokens = Complete({{"prompt", {one, two}}, {"n", 2}, {"seed", 4}}).json();
  ASSERT_EQ(texts["choices"].size(), 4u);
  EXPECT_EQ(texts["choices"], tokens["choices"]);
  EXPECT_EQ(texts["usage"]["completion_tokens"], 64) << "16 each, as OpenAI has it";
  EXPECT_EQ(Complete({{"prompt", one}, {"n", 2}, {"seed", 4}}).json()["choices"][1]["text"],
            texts["choices"][1]["text"]);
  EXPECT_NE(texts["choices"][0]["text"], texts["choices"][1]["text"]);
}

TEST_F(ApiServerTest, AStopStringEndsAnAnswerInFrontOfIt) {
  Open(Endless());
  const json body = {{"prompt", "9-4="}, {"max_tokens", 60}, {"seed", 5}};
  const std::string whole = Complete(body).json()["choices"][0]["text"];
  ASSERT_GT(whole.size(), 20u);
  const std::string stop = whole.substr(10, 4);
  const std::string front = whole.substr(0, whole.find(stop));
  for (const bool stream : {false, true}) {
    json asked = body;
    asked["stop"] = {"never said", stop};
    asked["stream"] = stream;
    const HttpReply reply = Complete(asked);
    ASSERT_EQ(reply.status, 200);
    std::string text, finish, found;
    for (const json& event : stream ? reply.events() : std::vector<json>{reply.json()}) {
      const json& choice = event["choices"][0];
      text += choice["text"].get<std::string>();
      if (choice["finish_reason"].is_null()) continue;
      finish = choice["finish_reason"];
      found = choice["stop_reason"];
    }
    EXPECT_EQ(text, front);
    EXPECT_EQ(finish, "stop");
    EXPECT_EQ(found, stop);
  }
  // The engine's slot is free, too.
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_LT(engine_->counters().generated_tokens, 60u + 2 * 60u);
}

TEST_F(ApiServerTest, WhatCannotBeIsSaidInOpenAisForm) {
  Open(Endless(100), {.max_new_tokens = 50});
  const json fine = {{"prompt", "1"}, {"max_tokens", 2}};
  const auto refused = [&](json more, int status, const std::string& word,
                           const std::string& path = "/v1/completions") {
    json body = fine;
    if (path != "/v1/completions") {
      body = {{"messages", {{{"role", "user"}, {"content", "1"}}}}, {"max_tokens", 2}};
    }
    body.update(more);
    const HttpReply reply = Post(port(), path, body);
    EXPECT_EQ(reply.status, status) << body << reply.body;
    const json error = reply.json()["error"];
    EXPECT_NE(error["message"].get<std::string>().find(word), std::string::npos) << error;
    EXPECT_TRUE(error.contains("type") && error.contains("param") && error.contains("code"));
  };
  EXPECT_EQ(Complete(fine).status, 200);
  refused({{"max_tokens", 51}}, 400, "--max-new-tokens");
  refused({{"max_tokens", 100}}, 400, "context");
  refused({{"prompt", std::string(200, '1')}}, 400, "context");
  refused({{"prompt", {1, 100000}}}, 400, "vocabulary");
  refused({{"prompt", ""}, {"max_tokens", 0}}, 400, "max_tokens");
  refused({{"n", 129}}, 400, "128");
  refused({{"prompt", json::array()}}, 400, "prompt");
  refused({{"stop", ""}}, 400, "stop");
  refused({{"temperature", -1}}, 400, "temperature");
  refused({{"temperature", "hot"}}, 400, "temperature");
  refused({{"top_p", 0}}, 400, "top_p");
  refused({{"seed", 1.5}}, 400, "seed");
  refused({{"logprobs", 5}}, 400, "logprobs");
  refused({{"frequency_penalty", 1}}, 400, "frequency_penalty");
  refused({{"beam_width", 4}}, 400, "not known");
  refused({{"model", "gpt-4"}}, 404, "gpt-4");
  const std::string chat = "/v1/chat/completions";
  refused({{"messages", json::array()}}, 400, "messages", chat);
  refused({{"messages", {{{"role", "king"}, {"content", "1"}}}}}, 400, "king", chat);
  refused({{"top_logprobs", 3}}, 400, "top_logprobs", chat);
  refused({{"tools", {{{"type", "function"}}}}}, 400, "tools", chat);
  refused({{"response_format", {{"type", "json_object"}}}}, 400, "response_format", chat);
  const auto raw = [&](const std::string& body, const std::string& type) {
    return testing::SendRaw(port(),
                            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                            "Connection: close\r\nContent-Type: " +
                                type + "\r\nContent-Length: " + std::to_string(body.size()) +
                                "\r\n\r\n" + body);
  };
  EXPECT_EQ(raw("{\"prompt\": \"1\",", "application/json").status, 400);
  EXPECT_EQ(raw("[]", "application/json").json()["error"]["code"], "bad_json");
  EXPECT_EQ(raw("{\"prompt\":\"1\",\"prompt\":\"2\"}", "application/json").status, 400);
  EXPECT_EQ(raw("{\"prompt\":\"1\"}", "application/json; charset=utf-8").status, 200);
  EXPECT_EQ(raw("{\"prompt\":\"1\"}", "text/plain").status, 415) << "what any page may send";
  EXPECT_EQ(Get(port(), "/v1/nothing").status, 404);
  EXPECT_TRUE(Get(port(), "/v1/nothing").json().contains("error"));
  EXPECT_EQ(testing::SendRaw(port(),
                             "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n"
                             "Connection: close\r\n\r\n")
                .status,
            421);
}

TEST_F(ApiServerTest, MemoryForKeysAndValuesBoundsAnAnswer) {
  // 256 bytes a token: 4,096 of them
  Open(Endless(20000), {.max_new_tokens = 10000, .kv_mb = 1});
  EXPECT_EQ(engine_->context(), 4096);
  const json messages = {{{"role", "user"}, {"content", "1"}}};
  const HttpReply most = Chat({{"messages", messages}});
  ASSERT_EQ(most.status, 200) << most.body;
  EXPECT_EQ(most.json()["usage"]["total_tokens"], 4096)
      << "without max_tokens what there is room for";
  const HttpReply more = Chat({{"messages", messages}, {"max_tokens", 5000}});
  EXPECT_EQ(more.status, 400);
  EXPECT_NE(more.body.find("--kv-mb"), std::string::npos) << more.body;
}

TEST_F(ApiServerTest, ABodyHasABound) {
  Open(Endless(), {}, {.max_body = 2000});
  const json large = {{"prompt", std::string(3000, '1')}};
  EXPECT_EQ(Complete(large).status, 413);
  EXPECT_TRUE(Complete(large).json()["error"].contains("message"));
  // in chunks, which says no length
  const std::string text = large.dump();
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", text.size());
  EXPECT_EQ(testing::SendRaw(port(),
                             "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                             "Connection: close\r\nContent-Type: application/json\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n" +
                                 std::string(size) + text + "\r\n0\r\n\r\n")
                .status,
            413);
  EXPECT_EQ(Complete({{"prompt", "1"}}).status, 200);
}

TEST_F(ApiServerTest, AKeyKeepsOthersOut) {
  Open(Endless(), {}, {.key = "a secret"});
  const json body = {{"prompt", "1"}, {"max_tokens", 1}};
  EXPECT_EQ(Complete(body).status, 401);
  EXPECT_EQ(Complete(body).json()["error"]["code"], "invalid_api_key");
  for (const char* wrong : {"a secre", "a secret ", "A secret", ""}) {
    const std::string header = std::string("Authorization: Bearer ") + wrong + "x\r\n";
    EXPECT_EQ(Post(port(), "/v1/completions", body, header).status, 401);
  }
  const std::string right = "Authorization: Bearer a secret\r\n";
  EXPECT_EQ(Post(port(), "/v1/completions", body, right).status, 200);
  EXPECT_EQ(Get(port(), "/v1/models").status, 401);
  EXPECT_EQ(Get(port(), "/metrics").status, 401);
  EXPECT_EQ(Get(port(), "/health").status, 200) << "for whoever watches over it";
}

TEST_F(ApiServerTest, ModelsTokensAndMetricsAreSaid) {
  Open(Endless());
  const json models = Get(port(), "/v1/models").json();
  EXPECT_EQ(models["data"][0]["id"], "model");
  EXPECT_EQ(models["data"][0]["max_model_len"], 400);
  EXPECT_EQ(Get(port(), "/v1/models/model").json()["id"], "model");
  EXPECT_EQ(Get(port(), "/v1/models/other").status, 404);
  const ModelFolder& m = models_->folder();
  const json plain = Post(port(), "/tokenize", {{"prompt", "1+1"}}).json();
  EXPECT_EQ(plain["tokens"].get<std::vector<int32_t>>(), m.EncodeText("1+1"));
  EXPECT_EQ(plain["count"], plain["tokens"].size());
  EXPECT_EQ(
      Post(port(), "/tokenize", {{"prompt", "1+1"}, {"add_special_tokens", false}}).json()["count"],
      3);
  EXPECT_EQ(Post(port(), "/tokenize", {{"messages", {{{"role", "user"}, {"content", "1"}}}}})
                .json()["tokens"]
                .get<std::vector<int32_t>>(),
            m.tokenizer->Encode("<bos>1="));
  Complete({{"prompt", "1+1="}, {"max_tokens", 9}});
  Complete({{"prompt", ""}, {"n", 0}});
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  const std::string metrics = Get(port(), "/metrics").body;
  for (const char* line :
       {"plumb_serve_replies_total{endpoint=\"/v1/completions\",status=\"200\"} 1\n",
        "plumb_serve_replies_total{endpoint=\"/v1/completions\",status=\"400\"} 1\n",
        "plumb_serve_generated_tokens_total 9\n",
        "plumb_serve_answers_total{finish=\"length\"} 1\n",
        "plumb_serve_first_token_seconds_count 1\n", "plumb_serve_requests 0\n"})
    EXPECT_NE(metrics.find(line), std::string::npos) << line << metrics;
}

TEST_F(ApiServerTest, AdaptersAreAskedForByName) {
  testing::WriteToyModel(temp_ / "model", Endless());
  policy_model::Weights weights = testing::ToyWeights(Endless());
  weights.AddAdapter({.rank = 4, .alpha = 8}, 5);
  policy_model::ParameterSet& set = *weights.adapters()[0];
  for (const auto& e : set.table->entries()) {
    for (int64_t i = 0; e.name.ends_with("lora_B") && i < e.elements; ++i)
      set.flat.f32()[e.offset + i] = 0.05f * static_cast<float>(i % 7 - 3);
  }
  policy_model::SaveModelDirectory(weights, temp_ / "adapter", "", temp_ / "model");
  models_ = std::make_unique<ServedModels>(temp_ / "model", ModelOptions{.threads = 1}, "base");
  models_->AddAdapter("tuned", temp_ / "adapter");
  EXPECT_THROW(models_->AddAdapter("tuned", temp_ / "adapter"), Error);
  EXPECT_THROW(models_->AddAdapter("other", temp_ / "model"), Error) << "is no adapter";
  Start({}, {});
  const auto ask = [&](const std::string& name) {
    const json out = Complete({{"model", name},
                               {"prompt", "1+2="},
                               {"max_tokens", 25},
                               {"seed", 6},
                               {"return_token_ids", true}})
                         .json();
    EXPECT_EQ(out["model"], name);
    return out["choices"][0]["token_ids"].get<std::vector<int32_t>>();
  };
  const ModelFolder alone = LoadModel(temp_ / "adapter", {.threads = 1});
  const std::vector<int32_t> tokens = alone.EncodeText("1+2=");
  EXPECT_EQ(ask("tuned"), Direct(alone, tokens, 6, 1, 25).samples[0].tokens);
  EXPECT_EQ(ask("base"), Direct(models_->folder(), tokens, 6, 1, 25).samples[0].tokens);
  EXPECT_NE(ask("base"), ask("tuned"));
  EXPECT_EQ(Get(port(), "/v1/models").json()["data"].size(), 2u);
}

// With PLUMB_TEST_FRAMEWORKS_PYTHON=venv/bin/python: pip install openai.
TEST_F(ApiServerTest, OpenAisOwnClientIsServedInstalled) {
  const char* python = std::getenv("PLUMB_TEST_FRAMEWORKS_PYTHON");
  if (python == nullptr || std::system((std::string(python) + " -c 'import openai'").c_str()) != 0)
    GTEST_SKIP() << "NOT TESTED: no openai here; name an interpreter that has it in "
                    "PLUMB_TEST_FRAMEWORKS_PYTHON";
  Open(Endless());
  RealFileSystem().WriteFileAtomic(temp_ / "client.py", R"(
import concurrent.futures, openai
client = openai.OpenAI(max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
asked = dict(model=model, messages=[{"role": "user", "content": "1+1="}], max_tokens=12, seed=3)
whole = client.chat.completions.create(**asked, n=2, logprobs=True, extra_body={"return_token_ids": True})
assert len(whole.choices) == 2 and whole.usage.completion_tokens == 24, whole
for choice in whole.choices:
    assert choice.finish_reason == "length" and len(choice.logprobs.content) == 12, choice
    assert all(token.logprob <= 0 for token in choice.logprobs.content)
    assert len(choice.token_ids) == 12
stream, usage = "", None
for event in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
    stream += "".join(choice.delta.content or "" for choice in event.choices)
    usage = event.usage or usage
assert stream == whole.choices[0].message.content, (stream, whole)
assert usage.completion_tokens == 12, usage
text = client.completions.create(model=model, prompt="1+1=", max_tokens=9, temperature=0).choices[0].text
with client.completions.create(model=model, prompt="1+1=", max_tokens=9, temperature=0, stream=True) as events:
    assert "".join(event.choices[0].text for event in events) == text
if len(text) > 3:
    cut = client.completions.create(model=model, prompt="1+1=", max_tokens=9, temperature=0, stop=[text[2:4]]).choices[0]
    assert cut.finish_reason == "stop" and cut.text == text[:text.index(text[2:4])], cut
try:
    client.chat.completions.create(**asked, logit_bias={"1": 2})
    assert False
except openai.BadRequestError as error:
    assert "logit_bias" in str(error)
try:
    client.completions.create(model="another", prompt="1")
    assert False
except openai.NotFoundError:
    pass
with concurrent.futures.ThreadPoolExecutor(50) as many:
    ask = lambda seed: client.completions.create(model=model, prompt="1+1=", max_tokens=6, seed=seed).choices[0].text
    together = list(many.map(ask, range(100)))
assert together == [ask(seed) for seed in range(100)]
)");
  EXPECT_EQ(std::system(("OPENAI_BASE_URL=http://127.0.0.1:" + std::to_string(port()) +
                         "/v1 OPENAI_API_KEY=none " + python + " " + (temp_ / "client.py"))
                            .c_str()),
            0);
}

}  // namespace
}  // namespace plumb::run
