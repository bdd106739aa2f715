// kind = "http": the same requests, a POST each.
#include "common/net/http_client.h"
#include "environment/doors/peer.h"

namespace plumb::environment {
namespace {

class HttpPeer : public Peer {
 public:
  HttpPeer(const Url& url, std::chrono::milliseconds timeout)
      : timeout_(timeout), client_(url, {.bearer = "", .once = true}) {}

  Problem Start(std::string* tools) override {
    const HttpReply reply = client_.Post(R"({"id":0,"call":"hello"})", After(timeout_));
    if (reply.failure != Failure::kNone) return reply.reason;
    try {
      Greeting greeting = ReadGreeting(reply.body);
      *tools = std::move(greeting.tools);
      if (!greeting.error.empty()) return greeting.error.substr(0, 2000);
    } catch (const Error& error) {
      return error.message() +
             ". To {\"id\":0,\"call\":\"hello\"} belongs {\"ready\":true}, or "
             "{\"ready\":true,\"tools\":[..]} (docs/environments.md)";
    }
    return std::nullopt;
  }

  PeerReply Call(const PeerRequest& request, Deadline deadline) override {
    const uint64_t id = ++next_id_;
    const HttpReply reply = client_.Post(RequestLine(request, id), deadline);
    // The service keeps the conversations, and they are no worse for a request that failed: it is
    // this one alone that cannot go on.
    PeerReply failed;
    if (reply.failure != Failure::kNone) {
      failed.error = std::string(FailureName(reply.failure)) + ": " + reply.reason;
      return failed;
    }
    try {
      return ReadReply(reply.body, id, request.calls.size());
    } catch (const Error& error) {
      failed.error = "bad_reply: " + error.message();
      return failed;
    }
  }

 private:
  const std::chrono::milliseconds timeout_;
  HttpClient client_;
  uint64_t next_id_ = 0;
};

}  // namespace

std::unique_ptr<Peer> MakeHttpPeer(const std::string& endpoint, std::chrono::milliseconds timeout) {
  return std::make_unique<HttpPeer>(ParseUrl(endpoint), timeout);
}

}  // namespace plumb::environment
