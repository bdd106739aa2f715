// run/session/recipe/python_function.h: which functions a file can have, by its words.
#include "run/session/recipe/python_function.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

TEST(PythonFunction, IsOneThatItsFileMayHave) {
  const plumb::testing::TempFolder temp;
  const auto code = [&](const std::string& text, const std::string& function) {
    RealFileSystem().WriteFileAtomic(temp / "f.py", text);
    try {
      const PythonFunction found = PythonFunctionOf(temp / ("f.py" + function));
      EXPECT_EQ(found.file, temp / "f.py");
      return "taken as " + found.function;
    } catch (const Error& e) {
      return std::string(ErrorCodeName(e.code()));
    }
  };
  EXPECT_EQ(code("", ""), "taken as ");
  EXPECT_EQ(code("def f(x): return x\n", ":f"), "taken as f");
  EXPECT_EQ(code("async def  f(x): return x\n", ":f"), "taken as f");
  EXPECT_EQ(code("class f: pass\n", ":f"), "taken as f");
  EXPECT_EQ(code("f = lambda x: x\n", ":f"), "taken as f");
  EXPECT_EQ(code("from a import (g,\n  f)\n", ":f"), "taken as f");
  EXPECT_EQ(code("from a import *\n", ":f"), "taken as f");
  EXPECT_EQ(code("def ff(x): return g(f)\n", ":f"), "not_found");
  EXPECT_EQ(code("import os\ndef g(x): return x\n", ":f"), "not_found");
  EXPECT_EQ(code("def f(x): return x\n", ":"), "invalid_argument");
  EXPECT_THROW(PythonFunctionOf("f.txt"), Error);
}

}  // namespace
}  // namespace plumb::run
