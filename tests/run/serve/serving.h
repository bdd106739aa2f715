// A server over a tiny model, for tests: model folder, engine and server.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/error.h"
#include "run/models/answering.h"
#include "run/serve/api_server.h"
#include "tests/run/models/toy_model.h"
#include "tests/run/serve/api_client.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {

class Serving : public ::testing::Test {
 protected:
  void Open(const testing::ToyModel& toy, BatchOptions batch = {}, ApiOptions api = {}) {
    testing::WriteToyModel(temp_ / "model", toy);
    models_ = std::make_unique<ServedModels>(temp_ / "model", ModelOptions{.threads = 1});
    Start(batch, api);
  }
  // Without an end token every answer is as long as it may be.
  static testing::ToyModel Endless(int64_t positions = 400) {
    return {.max_positions = positions, .chat_template = true, .end_token = false};
  }
  void Start(BatchOptions batch, const ApiOptions& api) {
    batch.threads = 1;
    if (batch.kv_mb == BatchOptions().kv_mb) batch.kv_mb = 64;
    engine_ = std::make_unique<BatchEngine>(*models_, batch);
    try {
      server_ = std::make_unique<ApiServer>(*models_, *engine_, api);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kUnsupported) GTEST_SKIP() << e.what();
      throw;
    }
  }
  int port() const { return server_->port(); }
  testing::HttpReply Complete(const nlohmann::json& body) {
    return testing::Post(port(), "/v1/completions", body);
  }
  testing::HttpReply Chat(const nlohmann::json& body) {
    return testing::Post(port(), "/v1/chat/completions", body);
  }
  // What the engine says to the same, without a server.
  static actor::GenerateResult Direct(const ModelFolder& model, const std::vector<int32_t>& tokens,
                                      uint64_t seed, int64_t n, int64_t limit,
                                      const kernels::SamplingOptions& sampling = {}) {
    Prompt prompt;
    prompt.row = seed;
    prompt.tokens = tokens;
    Answering answering(model, {.samples = n,
                                .max_new_tokens = limit,
                                .max_batch = n,
                                .sampling = sampling,
                                .stop = {},
                                .purpose = Purpose::kTrain});
    actor::GenerateResult out;
    answering.Run(
        std::span(&prompt, 1), [&](size_t, actor::GenerateResult& r) { out = std::move(r); },
        [] { return false; });
    return out;
  }

  plumb::testing::TempFolder temp_;
  std::unique_ptr<ServedModels> models_;
  std::unique_ptr<BatchEngine> engine_;
  std::unique_ptr<ApiServer> server_;
};

}  // namespace plumb::run
