// A process's connections to PostgreSQL: at most so many, made when they are
// wanted, kept for the next. sum(processes x size) stays below the server's
// max_connections (docs/operations.md).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "coordinator/postgres/connection.h"

namespace selvage::coordinator {

// Thread-safe. Outlives its leases.
class ConnectionPool {
 public:
  // A connection of one's own, until this is destroyed.
  class Lease {
   public:
    Lease(ConnectionPool& pool, std::unique_ptr<Connection> connection)
        : pool_(&pool), connection_(std::move(connection)) {}
    ~Lease() {
      if (pool_ != nullptr) pool_->Return(std::move(connection_));
    }
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          connection_(std::move(other.connection_)) {}
    Lease& operator=(Lease&&) = delete;
    Connection& operator*() const { return *connection_; }

   private:
    ConnectionPool* pool_;
    std::unique_ptr<Connection> connection_;
  };

  ConnectionPool(ConnectOptions options, size_t size);

  // UNAVAILABLE: none became free within `wait`, or a new one was refused.
  Result<Lease> Acquire(Duration wait);

  size_t size() const { return size_; }
  size_t in_use();

 private:
  // A lost connection is dropped, and with it those that wait here: what ended
  // one (a restart, a failover) has ended them.
  void Return(std::unique_ptr<Connection> connection);

  const ConnectOptions options_;
  const size_t size_;
  std::mutex mu_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Connection>> idle_;
  size_t in_use_ = 0;
};

}  // namespace selvage::coordinator
