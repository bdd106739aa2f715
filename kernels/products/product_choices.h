// Which of the library's algorithms does a product on a GPU, and the file that keeps what was
// found by timing.
//
// Purpose: timing takes a fraction of a second a shape, and its result holds for a device and a
// version of the library (kernels/products/lt_products.h). A choice says how fast a product is and
// nothing about its numbers: all that may be chosen give the same bits.
// Thread safety: pure functions, but for those of the file, which several processes may call at
// once: it is replaced as a whole, and of two that add at the same moment one may be lost (and is
// then found again). Ownership: values.
// Errors: ParseChoices throws kCorruption for what is no such file and kConflict for one of another
// device or version. ReadChoices and AddChoices throw nothing: they say it, and go on without.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace plumb::kernels {

// A kind of product y[m, n] = x[m, k] w[n, k]^T (kernels/products/row_product.h).
struct ProductKey {
  int64_t rows = 0;  // RowBucket(m)
  int64_t n = 0, k = 0;
  bool float_in = false, float_out = false, residual = false, bias = false;
  auto operator<=>(const ProductKey&) const = default;
};

// The numbers that cuBLASLt calls an algorithm by; the number of splits of k is always 1.
struct ProductChoice {
  uint32_t algorithm = 0, tile = 0, stages = 0, cluster = 0, inner = 0, option = 0, swizzle = 0;
  bool operator==(const ProductChoice&) const = default;
};
using ProductChoices = std::map<ProductKey, ProductChoice>;

// What choices hold for.
struct ChoicesOwner {
  std::string device;   // its name and number of multiprocessors, without line breaks
  int64_t library = 0;  // cublasLtGetVersion()
};

// Numbers of rows that share a choice are named by their largest; above 8,192 by 8,192.
int64_t RowBucket(int64_t m);
// Algorithms whose bits depend on more than the number of splits.
bool KeepsBits(uint32_t algorithm);

std::string ChoicesText(const ChoicesOwner& of, const ProductChoices& choices);
ProductChoices ParseChoices(std::string_view text, const ChoicesOwner& of);

// $XDG_CACHE_HOME/plumb/products-DEVICE.txt, or that below ~/.cache; "": the user has neither.
std::string ChoicesPath(const ChoicesOwner& of);
ProductChoices ReadChoices(const std::string& path, const ChoicesOwner& of);
// Adds to what the file holds by now.
void AddChoices(const std::string& path, const ChoicesOwner& of, const ProductChoices& added);

}  // namespace plumb::kernels
