// Bytes that came from a socket, kept where they arrived.
// Thread safety: const methods. Ownership: shared by copies; a Payload made from a string owns it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

class Payload {
 public:
  Payload() = default;
  explicit Payload(std::string text) {
    auto owner = std::make_shared<const std::string>(std::move(text));
    view_ = *owner;
    owner_ = std::move(owner);
  }
  Payload(std::shared_ptr<const void> owner, std::string_view view)
      : owner_(std::move(owner)), view_(view) {}

  operator std::string_view() const { return view_; }
  std::string_view view() const { return view_; }
  std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(view_.data(), view_.size()));
  }
  std::string str() const { return std::string(view_); }
  size_t size() const { return view_.size(); }
  Payload Part(size_t offset, size_t bytes) const {
    return Payload(owner_, view_.substr(offset, bytes));
  }

 private:
  std::shared_ptr<const void> owner_;
  std::string_view view_;  // into *owner_
};

}  // namespace plumb
