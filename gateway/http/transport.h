// Bytes over a socket, plain or TLS. Loop thread only; one read and one write at a time.
#pragma once

#include <absl/functional/any_invocable.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>

namespace behemoth::gateway {

class Transport {
 public:
  using Done = absl::AnyInvocable<void(boost::system::error_code, size_t)>;
  virtual ~Transport() = default;
  virtual void Handshake(Done done) = 0;
  virtual void Read(char* to, size_t size, Done done) = 0;           // some
  virtual void Write(const char* from, size_t size, Done done) = 0;  // all
  virtual void ShutdownSend() = 0;
  virtual void Close() = 0;
};

std::unique_ptr<Transport> NewTransport(boost::asio::ip::tcp::socket socket,
                                        boost::asio::ssl::context* tls);  // null = plain

}  // namespace behemoth::gateway
