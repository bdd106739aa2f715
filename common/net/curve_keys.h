// Who may talk to whom: CURVE keys in files, and the list of those that a server lets in (asked by
// common/net/wire_socket.cc).
//
//   NAME.key      secret and public key; mode 0600, read by its owner's processes only
//   NAME.pub      public key alone; give it to the other side
//   allowed file  public keys, one per line, '#' begins a comment; read anew whenever it changed,
//                 so that removing a line revokes a key for every new connection
//
// A client proves its key, the server's key proves the server; both sides' messages are encrypted
// and cannot be replayed into another connection. Keys are written as ZeroMQ's Z85 text of 40
// characters.
// Thread safety: all. Errors: kInvalidArgument for text that is no
// key, kNotFound, kUnsupported for a secret that others can read or a ZeroMQ without CURVE; secrets
// never stand in messages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/mutex.h"

namespace plumb {

struct CurveKeys {
  std::string public_key;
  std::string secret_key;
  bool empty() const { return secret_key.empty(); }
};

// What a client needs: its own pair and the server's public key.
struct CurveClient {
  std::string server_key;
  CurveKeys own;
  // A person said that these peers may talk without keys beyond the loopback: neither proved nor
  // encrypted.
  bool open = false;
  bool empty() const { return server_key.empty(); }
};

// What a server needs: its own pair and the file, or files, of the clients it lets in.
struct CurveServer {
  CurveKeys own;
  std::string allowed_file;
  std::string also_allowed_file = {};  // those of this one, too; empty: there is none
  bool open = false;                   // as a client's
  bool empty() const { return own.empty(); }
};

CurveKeys GenerateCurveKeys();
// Writes PATH.key (0600) and PATH.pub; kConflict when one is there already: a key in use is not
// overwritten.
void WriteCurveKeys(const std::string& path, const CurveKeys& keys);
CurveKeys ReadCurveKeys(const std::string& key_file);
// Of a .pub file, or the text of a key itself.
std::string ReadPublicKey(const std::string& file_or_key);
std::vector<std::string> ReadAllowedKeys(const std::string& file);

// The list of keys a server lets in, as its file says now.
class AllowedKeys {
 public:
  explicit AllowedKeys(std::string file);  // throws for a file that cannot be read
  // Asked for every connection and every request: a line taken out counts at once. A list that
  // became unreadable lets nobody in.
  bool Allows(const std::string& public_key);

 private:
  struct Stamp {
    uint64_t inode = 0;
    int64_t size = -1, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp Look(const std::string& file);

  const std::string file_;
  Mutex mu_;
  Stamp stamp_ PLUMB_GUARDED_BY(mu_);
  std::vector<std::string> keys_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb
