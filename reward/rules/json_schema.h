// Whether a JSON document is what a schema asks for: a subset of JSON Schema, draft 2020-12.
//
// Keywords that are checked: type (a name or a list), enum, const; minimum, maximum,
// exclusiveMinimum, exclusiveMaximum, multipleOf; minLength, maxLength (in characters), pattern
// (reward/rules/linear_regex.h); properties, required, additionalProperties, minProperties,
// maxProperties; prefixItems, items, minItems, maxItems, uniqueItems; allOf, anyOf, oneOf, not;
// true and false as schemas. Keywords that say nothing about validity and are accepted: $schema,
// $comment, title, description, default, examples, deprecated, readOnly, writeOnly. Every other
// one, $ref and format included, is an error: a check that is not made must not look made.
//
// 1.0 is an integer and equals 1. A name that stands twice in an object: the last counts.
//
// kind json_schema. Value: 1 if the document is valid, 0 if it is no JSON; else 0, or with
// partial=1 the share of the checks that hold: each keyword at each place of the document is a
// check (a name of `required` and each branching keyword count one; properties and items count what
// they check in turn), so that it stays below 1.
//
// args: schema=JSON or path = FILE of the part; where=whole|answer|fence: the whole completion,
// what stands in the last <answer>..</answer>, or in the last ``` fence; partial=0|1.
//
// Thread safety: immutable after construction. Errors: Error(kInvalidArgument) naming the place in
// the schema, e.g.
// "/properties/a".
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "reward/rules/rule.h"

namespace plumb::reward {

class JsonSchema {
 public:
  struct Checks {
    int64_t held = 0;
    int64_t made = 0;
    bool valid() const { return held == made; }
  };

  // Error(kInvalidArgument) for what is no schema of the subset above.
  explicit JsonSchema(const nlohmann::json& schema);
  ~JsonSchema();
  JsonSchema(JsonSchema&&) noexcept;

  Checks Check(const nlohmann::json& document) const;

 private:
  struct Node;
  static std::unique_ptr<Node> Compile(const nlohmann::json& schema, const std::string& place,
                                       int depth);
  static Checks Walk(const Node& node, const nlohmann::json& value);
  std::unique_ptr<const Node> root_;
};

RuleParts MakeJsonSchema(const configs::RewardPartConfig& part);

}  // namespace plumb::reward
