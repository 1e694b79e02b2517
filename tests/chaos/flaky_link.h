// A TCP link that can be cut, slow, or a black hole: what is between devices
// and replicas, and replicas and their database, in tests. Bytes are passed on
// unread.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace selvage::test {

// Thread-safe.
class FlakyLink {
 public:
  // Listens on a free loopback port. Aborts if there is none.
  FlakyLink();
  ~FlakyLink();
  FlakyLink(const FlakyLink&) = delete;
  FlakyLink& operator=(const FlakyLink&) = delete;

  std::string address() const;  // "127.0.0.1:PORT"
  // Where connections go from now on: "127.0.0.1:PORT", or the path of a Unix
  // socket, "/...".
  void Lead(const std::string& target);
  // Ends every connection and lets none through until Mend().
  void Cut();
  // Every stretch of bytes is held back for that long, in milliseconds.
  void Delay(int milliseconds) { delay_ = milliseconds; }
  // Connections stay, and nothing comes through until Mend().
  void Freeze() { frozen_ = true; }
  // Neither cut nor frozen nor slow.
  void Mend();

 private:
  struct Connection;
  void Accept();
  void Pass(Connection& connection);
  void Reap(bool all);
  // A connected socket; -1: nobody is there.
  int ConnectToTarget();

  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> cut_{false};
  std::atomic<int> delay_{0};
  std::atomic<bool> frozen_{false};
  std::mutex mu_;
  std::string target_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::thread acceptor_;
};

}  // namespace selvage::test
