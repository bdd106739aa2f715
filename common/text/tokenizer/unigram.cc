#include "common/text/tokenizer/unigram.h"

#include <algorithm>
#include <cstdio>

#include "common/base/error.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

constexpr double kUnknownPenalty = 10;

}  // namespace

Unigram::Unigram(bool byte_fallback) : byte_fallback_(byte_fallback) {
  fallback_.fill(-1);
  edges_.resize(64);
  token_of_node_.push_back(-1);
}

void Unigram::AddToken(std::string_view text, double score, const std::string& where) {
  const auto id = static_cast<int32_t>(scores_.size());
  if (!tokens_.Add(text, id)) {
    throw Error(ErrorCode::kCorruption,
                "the token " + std::to_string(id) + " has the same text as another", where);
  }
  lowest_ = scores_.empty() ? score : std::min(lowest_, score);
  scores_.push_back(score);
  int32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    int32_t next = Next(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(token_of_node_.size());
      if (2 * token_of_node_.size() > edges_.size()) {
        std::vector<Edge> old(2 * edges_.size());
        old.swap(edges_);
        for (const Edge& e : old) {
          if (e.key != 0) edges_[SlotOf(e.key)] = e;
        }
      }
      const uint64_t key = (static_cast<uint64_t>(node) << 8 | byte) + 1;
      edges_[SlotOf(key)] = {key, next};
      token_of_node_.push_back(-1);
    }
    node = next;
  }
  if (node != 0) token_of_node_[static_cast<size_t>(node)] = id;
  if (byte_fallback_ && text.size() == 6 && text.starts_with("<0x") && text[5] == '>') {
    for (uint32_t b = 0; b < 256; ++b) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", b);
      if (text == name) fallback_[b] = id;
    }
  }
}

class Unigram::Encoder : public WordEncoder {
 public:
  explicit Encoder(const Unigram& model)
      : model_(model), cache_(model.tokens_.size() < 4096 ? 10 : 15) {}

  void Encode(std::string_view word, std::vector<int32_t>& out) override {
    if (word.size() > WordCache::kBytes) return Cut(word, out);
    uint64_t hash = 0;
    if (const WordCache::Entry* e = cache_.Find(word, &hash)) {
      out.insert(out.end(), e->id, e->id + e->ids);
      return;
    }
    const size_t before = out.size();
    Cut(word, out);
    if (const size_t count = out.size() - before; count <= WordCache::kIds)
      cache_.Put(word, hash, out.data() + before, count);
  }

 private:
  struct Node {
    double score = 0;    // of the best way here
    int64_t begin = -1;  // of its last token; -1: none reaches here
    int32_t id = -1;
  };

  void Cut(std::string_view word, std::vector<int32_t>& out) {
    const Unigram& m = model_;
    ends_.assign(word.size() + 1, Node());
    const double unknown_score = m.lowest_ - kUnknownPenalty;
    for (size_t at = 0; at < word.size();) {
      const size_t character = DecodeUtf8(word, at).bytes;
      const double so_far = ends_[at].score;
      const auto offer = [&](size_t end, double score, int32_t id) {
        Node& node = ends_[end];
        if (node.begin >= 0 && score + so_far <= node.score) return;
        node = {score + so_far, static_cast<int64_t>(at), id};
      };
      bool single = false;
      int32_t trie = 0;
      for (size_t end = at; end < word.size();) {
        trie = m.Next(trie, static_cast<unsigned char>(word[end]));
        if (trie < 0) break;
        ++end;
        const int32_t id = m.token_of_node_[static_cast<size_t>(trie)];
        if (id < 0) continue;
        offer(end, m.scores_[static_cast<size_t>(id)], id);
        single |= end == at + character;
      }
      if (!single) {
        if (m.unknown_ < 0) {
          throw Error(ErrorCode::kInvalidArgument, "the character '" +
                                                       std::string(word.substr(at, character)) +
                                                       "' is not in the vocabulary");
        }
        offer(at + character, unknown_score, m.unknown_);
      }
      at += character;
    }
    // From the end; unknown ones in a row are one.
    reversed_.clear();
    for (size_t end = word.size(); end > 0;) {
      const Node& node = ends_[end];
      auto begin = static_cast<size_t>(node.begin);
      if (node.id == m.unknown_) {
        while (begin > 0 && ends_[begin].id == m.unknown_)
          begin = static_cast<size_t>(ends_[begin].begin);
        Unknown(word.substr(begin, end - begin));
      } else {
        reversed_.push_back(node.id);
      }
      end = begin;
    }
    out.insert(out.end(), reversed_.rbegin(), reversed_.rend());
  }

  void Unknown(std::string_view text) {
    if (const int32_t id = model_.Find(text); id >= 0) {
      reversed_.push_back(id);
      return;
    }
    const auto& fallback = model_.fallback_;
    const auto id_of = [&](char b) { return fallback[static_cast<unsigned char>(b)]; };
    if (!model_.byte_fallback_ ||
        !std::all_of(text.begin(), text.end(), [&](char b) { return id_of(b) >= 0; })) {
      reversed_.push_back(model_.unknown_);
      return;
    }
    for (size_t i = text.size(); i > 0; --i) reversed_.push_back(id_of(text[i - 1]));
  }

  const Unigram& model_;
  WordCache cache_;
  std::vector<Node> ends_;
  std::vector<int32_t> reversed_;
};

std::unique_ptr<WordEncoder> Unigram::MakeEncoder() const {
  return std::make_unique<Encoder>(*this);
}

}  // namespace plumb
