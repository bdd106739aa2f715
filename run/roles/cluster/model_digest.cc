#include "run/roles/cluster/model_digest.h"

#include "common/base/file.h"
#include "common/base/hash/sha256.h"
#include "policy_model/families/model_config.h"
#include "run/roles/socket_folder.h"

namespace plumb::run {

std::string ModelDigest(const Session& session) {
  constexpr size_t kLargest = size_t{64} << 20;
  const SocketFolder folder;  // private, and gone with this function
  policy_model::WriteModelConfig(session.shape(), folder.path(), configs::NameOf(session.dtype()));
  Sha256 sum;
  for (const std::string& name : RealFileSystem().List(folder.path())) {
    if (name != SocketFolder::kOwner)
      sum.Update(RealFileSystem().ReadFile(folder.path() + "/" + name, kLargest));
  }
  sum.Update(session.tokenizer().json());
  sum.Update(session.chat_template() != nullptr ? "template" : "none");
  return sum.HexDigest();
}

}  // namespace plumb::run
