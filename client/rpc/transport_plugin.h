// gRPC in a shared object of its own, which libselvage.so opens with the first
// session: a host that only adds examples and predicts never loads it.
//
// The seam is C++: the two objects are parts of one library, made by one build,
// and refuse each other otherwise.
#pragma once

#include "base/random.h"
#include "client/core/transport.h"

namespace selvage::client {

inline constexpr char kTransportPluginFile[] = "libselvage-grpc.so.0";
inline constexpr char kTransportPluginEntry[] = "selvage_transport_plugin";
// What both must have been compiled with.
inline constexpr char kTransportPluginBuild[] =
    "transport/1 " SELVAGE_LIBRARY_VERSION " " __VERSION__;

// False, and `factory` as it was, if `build` is not this one's. `random` must
// outlive the transports.
using TransportPluginFunction = bool (*)(const char* build,
                                         RandomSource& random,
                                         TransportFactory& factory);

}  // namespace selvage::client
