// Names and secrets that are functions of the server key, so that they need no
// row to be checked: assignment ids, assignment tokens, enrolment secrets, the
// nonces of identity keys.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "coordinator/api.h"
#include "coordinator/store.h"
#include "crypto/digest.h"
#include "crypto/secret.h"

namespace selvage::coordinator {

// Thread-safe.
class Tickets {
 public:
  // `server_key` must outlive this. What one epoch of the store made (EpochOf)
  // is worth nothing in another.
  explicit Tickets(const crypto::SecretBytes& server_key,
                   std::string epoch = "")
      : key_(server_key), epoch_(std::move(epoch)) {}

  // "TASK.ROUND.MAC", at most 64 characters. One device has one assignment per
  // round, so its id is a function of the two.
  std::string AssignmentId(const RoundKey& round,
                           const DeviceIdentity& device) const;
  // nullopt: not an id that AssignmentId made for this device.
  std::optional<RoundKey> RoundOf(const std::string& assignment_id,
                                  const DeviceIdentity& device) const;

  // What the device must show to use its assignment.
  crypto::Digest AssignmentToken(const std::string& assignment_id) const;

  // The same in every epoch. The secret of an enrolment token: repeatable, so
  // that a repeated request gets the same bundle although only its digest is
  // stored.
  crypto::Digest EnrolmentSecret(const std::string& token_id) const;

  // What the identity key of digest `key` is to sign: `now` (8 bytes, us since
  // 1970) || MAC. For it alone.
  Bytes IdentityNonce(const crypto::Digest& key, Time now) const;
  // When it was made; nullopt: not a nonce that IdentityNonce made for this
  // key.
  std::optional<Time> NonceMade(ByteSpan nonce,
                                const crypto::Digest& key) const;

 private:
  crypto::Digest Mac(std::string_view label, std::string_view message) const;
  // Of this epoch alone.
  crypto::Digest EpochMac(std::string_view label,
                          std::string_view message) const;

  const crypto::SecretBytes& key_;
  const std::string epoch_;
};

// What a restore added to the instance id of a store (docs/decisions/0013);
// empty if there was none.
std::string EpochOf(const std::string& instance_id);

}  // namespace selvage::coordinator
