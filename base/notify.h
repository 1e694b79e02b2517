// What systemd wants to hear from a service of Type=notify (sd_notify(3)): one
// datagram to the socket that NOTIFY_SOCKET names.
#pragma once

#include <string_view>

#include "base/status.h"

namespace selvage {

// Sends `state`, e.g. "READY=1", to `socket`: a path, or "@name" for Linux's
// abstract namespace. Nothing happens if `socket` is empty. Never blocks.
// INVALID_ARGUMENT: no address; UNAVAILABLE: nobody listens.
Status Notify(std::string_view socket, std::string_view state);

}  // namespace selvage
