// What head and roles have to agree on of a model, besides its weights, as one digest.
//
// Purpose: a role builds its model from the recipe and the tokenizer's files that it was handed;
// where it comes to another shape or vocabulary than the head, it is refused before it has done
// anything. Thread safety: pure function. Errors: those of a temporary folder.
#pragma once

#include <string>

#include "run/session/session.h"

namespace plumb::run {

// Of the shape (as config.json would say it), the tokenizer, and whether there is a chat template.
std::string ModelDigest(const Session& session);

}  // namespace plumb::run
