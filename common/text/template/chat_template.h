// Messages -> text, by the model's Jinja chat template.
//
// Purpose: an interpreter for the part of Jinja that chat templates use (for, if/elif/else, set,
// filters, slices, namespace, raise_exception, macros), bounded in steps and output so that a
// hostile template ends.
// Thread safety: const after construction.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/record/trajectory.h"

namespace plumb {

class ChatTemplate {
 public:
  // From `directory`: chat_template.jinja, else tokenizer_config.json's chat_template. nullptr when
  // the model has none. Where there is a second one named "tool_use" (a list in the configuration,
  // additional_chat_templates/tool_use.jinja beside the file), it renders what has tools, as with
  // transformers.
  static std::unique_ptr<ChatTemplate> LoadOrNull(const std::string& directory);
  // `bos`/`eos` are the texts of those tokens. Throws kCorruption with the line of a syntax error.
  static std::unique_ptr<ChatTemplate> Parse(std::string source, std::string bos, std::string eos);
  // Built-in by name: "chatml"; "bytes", of the vocabulary of that name.
  static std::unique_ptr<ChatTemplate> BuiltIn(const std::string& name);

  virtual ~ChatTemplate() = default;
  // What transformers' apply_chat_template makes of the same messages: each reaches the template
  // with all that it says (common/record/trajectory.h). `columns_json`: the other columns of the
  // row as one JSON object, or ""; of them the template sees `tools` (a list, or a text that holds
  // one) and what `chat_template_kwargs` holds. kInvalidArgument for columns that are none, and for
  // what the template refuses.
  virtual std::string Render(std::span<const Message> messages, bool add_generation_prompt,
                             std::string_view columns_json = {}) const = 0;
  virtual const std::string& source() const = 0;

 protected:
  ChatTemplate() = default;
};

}  // namespace plumb
