// A TCP link that can be cut, or slow: what is between devices and replicas in
// tests. Bytes are passed on unread.
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
  // Where connections go from now on, "127.0.0.1:PORT".
  void Lead(const std::string& target);
  // Ends every connection and lets none through until Mend().
  void Cut();
  // Every stretch of bytes is held back for that long, in milliseconds.
  void Delay(int milliseconds) { delay_ = milliseconds; }
  // Neither cut nor slow.
  void Mend();

 private:
  struct Connection;
  void Accept();
  void Pass(Connection& connection);
  void Reap(bool all);

  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> cut_{false};
  std::atomic<int> delay_{0};
  std::atomic<int> target_port_{0};
  std::mutex mu_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::thread acceptor_;
};

}  // namespace selvage::test
