// Standard input and pipes as files: what is read more than once has to lie somewhere.
//
// Purpose: readers of rows look at the beginning of a file before they read it, so what can be read
// only once is copied into a file. That has no name: it goes away with this object, and with a
// process that is stopped.
// Thread safety: none. Ownership: owns the file. Errors: kIo, kNoSpace (TMPDIR names another
// place).
#pragma once

#include <string>

#include "common/base/error.h"

namespace plumb::run {

class SpooledInput {
 public:
  // "-" is standard input; anything else that is no regular file and no folder is read likewise.
  // What is a file already stays where it is.
  explicit SpooledInput(const std::string& path);
  SpooledInput(const SpooledInput&) = delete;
  SpooledInput& operator=(const SpooledInput&) = delete;
  ~SpooledInput();

  const std::string& file() const { return file_; }  // where it can be read
  // `text` with what people call it in place of the file's name.
  std::string Named(std::string text) const;
  // Calls `work` with file(); an error that it throws names the input as people do.
  template <class Work>
  void Read(Work work) const {
    try {
      work(file_);
    } catch (const Error& e) {
      throw Error(e.code(), Named(e.message()), Named(e.where()));
    }
  }

 private:
  const std::string name_;
  std::string file_;
  int descriptor_ = -1;  // -1: it was a file
};

// All of standard input as a text that was typed or piped: without the line end at its end.
std::string TextOfStandardInput();

}  // namespace plumb::run
