#include "gateway/http/transport.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <utility>

namespace behemoth::gateway {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

class Plain final : public Transport {
 public:
  explicit Plain(tcp::socket socket) : socket_(std::move(socket)) {}
  void Handshake(Done done) override {
    boost::asio::post(socket_.get_executor(), [done = std::move(done)]() mutable { done({}, 0); });
  }
  void Read(char* to, size_t size, Done done) override {
    socket_.async_read_some(boost::asio::buffer(to, size), std::move(done));
  }
  void Write(const char* from, size_t size, Done done) override {
    boost::asio::async_write(socket_, boost::asio::buffer(from, size), std::move(done));
  }
  void ShutdownSend() override {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  void Close() override {
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  tcp::socket socket_;
};

class Tls final : public Transport {
 public:
  Tls(tcp::socket socket, boost::asio::ssl::context& context)
      : stream_(std::move(socket), context) {}
  void Handshake(Done done) override {
    stream_.async_handshake(boost::asio::ssl::stream_base::server,
                            [done = std::move(done)](error_code error) mutable { done(error, 0); });
  }
  void Read(char* to, size_t size, Done done) override {
    stream_.async_read_some(boost::asio::buffer(to, size), std::move(done));
  }
  void Write(const char* from, size_t size, Done done) override {
    boost::asio::async_write(stream_, boost::asio::buffer(from, size), std::move(done));
  }
  // Every reply carries its own end (length or last chunk), so that no close_notify is needed to
  // tell a whole one from a cut one.
  void ShutdownSend() override {
    error_code ignored;
    stream_.next_layer().shutdown(tcp::socket::shutdown_send, ignored);
  }
  void Close() override {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  boost::asio::ssl::stream<tcp::socket> stream_;
};

}  // namespace

std::unique_ptr<Transport> NewTransport(tcp::socket socket, boost::asio::ssl::context* tls) {
  if (tls == nullptr) return std::make_unique<Plain>(std::move(socket));
  return std::make_unique<Tls>(std::move(socket), *tls);
}

}  // namespace behemoth::gateway
