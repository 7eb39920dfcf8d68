// A client that speaks HTTP by hand, so that a test can also speak it badly. Blocking, with a time
// limit on every read.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace behemoth::gateway {

class HttpClient {
 public:
  explicit HttpClient(int port, int receive_bytes = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~HttpClient() { Close(); }
  HttpClient(const HttpClient&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }

  // All bytes up to and with `mark`, or all that came before the end or the time limit.
  std::string ReadTo(std::string_view mark) {
    size_t at;
    while ((at = read_.find(mark)) == std::string::npos) {
      char buffer[16384];
      const ssize_t got = recv(fd_, buffer, sizeof(buffer), 0);
      if (got <= 0) {
        ended_ = got == 0 || errno == ECONNRESET;
        return std::exchange(read_, "");
      }
      read_.append(buffer, static_cast<size_t>(got));
    }
    std::string out = read_.substr(0, at + mark.size());
    read_.erase(0, at + mark.size());
    return out;
  }
  std::string ReadToEnd() { return ReadTo("\xff\xfe never sent"); }
  bool ended() const { return ended_; }  // the server has closed

 private:
  int fd_;
  bool connected_ = false, ended_ = false;
  std::string read_;
};

struct HttpReply {
  int status = 0;
  std::string head, body;
};

// One request on a connection of its own. `headers` end in CRLF each.
inline HttpReply Fetch(int port, std::string_view method, std::string_view path,
                       std::string_view headers = "", std::string_view body = "") {
  HttpClient client(port);
  std::string bytes;
  bytes.append(method).append(" ").append(path).append(" HTTP/1.1\r\nHost: t\r\nConnection: close");
  bytes.append("\r\n").append(headers);
  if (!body.empty())
    bytes.append("Content-Length: ").append(std::to_string(body.size())).append("\r\n");
  client.Send(bytes.append("\r\n").append(body));
  HttpReply reply;
  reply.head = client.ReadTo("\r\n\r\n");
  if (reply.head.size() > 12) reply.status = std::stoi(reply.head.substr(9, 3));
  reply.body = client.ReadToEnd();
  return reply;
}

}  // namespace behemoth::gateway
