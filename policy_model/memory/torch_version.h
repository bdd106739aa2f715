// Which LibTorch this program runs with, as that says itself.
//
// Purpose: reports of errors name it wherever the library came from: a wheel, an unpacked archive,
// a package that holds the libraries alone. Thread safety: pure functions. Errors: none.
#pragma once

#include <string>
#include <string_view>

namespace plumb::policy_model {

// Of the library that was loaded: "2.11.0, CUDA 13.0"; without CUDA "2.11.0".
std::string TorchVersion();
// Of the headers that this program was compiled with: "2.11.0".
std::string TorchVersionOfHeaders();

// The value of `name` among LibTorch's build settings, a list of NAME=VALUE behind commas; "":
// it is not there.
std::string BuildSetting(std::string_view settings, std::string_view name);

}  // namespace plumb::policy_model
