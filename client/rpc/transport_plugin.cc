#include "client/rpc/transport_plugin.h"

#include <string_view>

#include "client/rpc/grpc_transport.h"

extern "C" __attribute__((visibility("default"))) bool selvage_transport_plugin(
    const char* build, selvage::RandomSource& random,
    selvage::client::TransportFactory& factory) {
  if (std::string_view(build) != selvage::client::kTransportPluginBuild) {
    return false;
  }
  factory = selvage::client::GrpcTransportFactory(random);
  return true;
}
