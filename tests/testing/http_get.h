// Just enough HTTP to talk to a port on this machine.
#pragma once

#include <string>

namespace selvage::test {

// Sends `request` as it is to 127.0.0.1:port and returns what comes back until
// the connection ends; empty if there is none.
std::string HttpExchange(int port, const std::string& request);

// The answer to GET `path`, its head included.
std::string HttpGet(int port, const std::string& path);

}  // namespace selvage::test
