// Devices that lie. What leaves them is changed on its way out, behind the
// client library's back: to the coordinator they are devices like any other.
#pragma once

#include <string_view>

#include "client/core/transport.h"

namespace selvage::bench {

enum class Attack {
  kNone,
  kSignFlip,       // five times the update, backwards
  kScaled,         // a million times the update
  kScaledInRange,  // the same, cut to what update.max_abs lets through
};
std::string_view AttackName(Attack attack);  // "none", "sign-flip", ...

// A device's transport whose uploads are changed. `max_abs` is the task's
// update.max_abs. Its updates must be float32: others fail with
// INVALID_ARGUMENT.
client::TransportFactory Attacking(client::TransportFactory honest,
                                   Attack attack, float max_abs);

}  // namespace selvage::bench
