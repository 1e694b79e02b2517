// What holds between a device that is enrolled and one that enrols under its
// name, for the coordinator and for every store.
#pragma once

#include <string>

#include "base/status.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// Whether `row` may take the place of `existing`: the same key, of the same
// kind.
inline Status CheckSameKey(const DeviceRow& existing, const DeviceRow& row) {
  if (existing.key_digest != row.key_digest) {
    return AlreadyExists("device " + row.device_id +
                         " is enrolled with another key");
  }
  const bool had = existing.nonce_made != Time{};
  if (had != (row.nonce_made != Time{})) {
    return AlreadyExists("device " + row.device_id + " is enrolled with " +
                         (had ? "an identity key" : "its certificate's key"));
  }
  return OkStatus();
}
inline Status CheckNewNonce(const DeviceRow& existing, const DeviceRow& row) {
  if (row.nonce_made == Time{} || row.nonce_made > existing.nonce_made) {
    return OkStatus();
  }
  return Aborted("device " + row.device_id +
                 " has a certificate for this nonce or a later one");
}

}  // namespace selvage::coordinator
