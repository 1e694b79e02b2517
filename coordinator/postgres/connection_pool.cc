#include "coordinator/postgres/connection_pool.h"

#include <string>
#include <utility>

namespace selvage::coordinator {

ConnectionPool::ConnectionPool(ConnectOptions options, size_t size)
    : options_(std::move(options)), size_(size) {}

Result<ConnectionPool::Lease> ConnectionPool::Acquire(Duration wait) {
  std::unique_ptr<Connection> connection;
  {
    std::unique_lock<std::mutex> lock(mu_);
    if (!returned_.wait_for(lock, wait, [this] { return in_use_ < size_; })) {
      return Unavailable("database: all " + std::to_string(size_) +
                         " connections of the pool are in use");
    }
    ++in_use_;
    if (!idle_.empty()) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (connection == nullptr) {
    auto opened = Connection::Open(options_);
    if (!opened.ok()) {
      {
        std::lock_guard<std::mutex> lock(mu_);
        --in_use_;
      }
      returned_.notify_one();
      return opened.status();
    }
    connection = *std::move(opened);
  }
  return Lease(*this, std::move(connection));
}

size_t ConnectionPool::in_use() {
  std::lock_guard<std::mutex> lock(mu_);
  return in_use_;
}

void ConnectionPool::Return(std::unique_ptr<Connection> connection) {
  std::vector<std::unique_ptr<Connection>> dropped;
  {
    std::lock_guard<std::mutex> lock(mu_);
    --in_use_;
    if (connection->lost()) {
      dropped.swap(idle_);
      dropped.push_back(std::move(connection));
    } else {
      idle_.push_back(std::move(connection));
    }
  }
  returned_.notify_one();
}

}  // namespace selvage::coordinator
