#include "worker/device/cuda/host_upload.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>

#include "tests/unit/worker/checkpoint/model_files.h"

namespace behemoth::worker {
namespace {

using testing::HasSubstr;

// A device whose copies happen as late as they may: when their buffer is awaited, or at Run(). A
// buffer that is written too early shows as wrong bytes.
class LateDevice : public UploadBuffers {
 public:
  LateDevice(size_t count, size_t bytes) : bytes_(bytes), buffers_(count), copies_(count) {
    for (auto& buffer : buffers_) buffer.resize(bytes);
  }
  size_t count() const override { return buffers_.size(); }
  size_t buffer_bytes() const override { return bytes_; }
  std::byte* buffer(size_t index) override { return buffers_[index].data(); }
  absl::Status Copy(size_t index, size_t bytes, void* device) override {
    if (++copied_ > fail_after) return absl::InternalError("the device is gone");
    copies_[index] = {bytes, device};
    return absl::OkStatus();
  }
  absl::Status Await(size_t index) override {
    const CopyCall call = std::exchange(copies_[index], {});
    if (call.bytes > 0) std::memcpy(call.device, buffers_[index].data(), call.bytes);
    return absl::OkStatus();
  }
  // All that is enqueued.
  void Run() {
    for (size_t i = 0; i < count(); ++i) ASSERT_TRUE(Await(i).ok());
  }

  std::atomic<int> fail_after = 1 << 30;

 private:
  struct CopyCall {
    size_t bytes = 0;
    void* device = nullptr;
  };
  const size_t bytes_;
  std::vector<std::vector<std::byte>> buffers_;
  std::vector<CopyCall> copies_;
  std::atomic<int> copied_ = 0;
};

struct Rig {
  explicit Rig(size_t count = 6, size_t bytes = 16) {
    auto made = std::make_unique<LateDevice>(count, bytes);
    device = made.get();
    upload = std::make_unique<HostUpload>(std::move(made));
  }
  LateDevice* device;
  std::unique_ptr<HostUpload> upload;
};

std::vector<uint8_t> SomeBytes(size_t count, uint8_t first) {
  std::vector<uint8_t> bytes(count);
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

StoredBytes Owned(const std::vector<uint8_t>& bytes) { return Stored<uint8_t>(bytes).bytes(); }

std::shared_ptr<const OpenFile> FileOf(const ModelFiles& files, const std::string& bytes) {
  files.Write("shard", bytes);
  return std::make_shared<const OpenFile>("shard",
                                          open((files.path() / "shard").c_str(), O_RDONLY));
}

TEST(HostUploadTest, EverySizeArrivesWhole) {
  for (const size_t buffers : {1, 2, 6}) {
    Rig rig(buffers);
    for (const size_t size : {0, 1, 15, 16, 17, 95, 96, 97, 1000}) {
      const std::vector<uint8_t> from = SomeBytes(size, static_cast<uint8_t>(size));
      std::vector<uint8_t> to(size + 1, 0xee);
      ASSERT_TRUE(rig.upload->Copy(to.data(), std::as_bytes(std::span(from))).ok());
      rig.device->Run();
      EXPECT_EQ(to.back(), 0xee);
      to.pop_back();
      EXPECT_EQ(to, from) << buffers << " buffers";
    }
    EXPECT_EQ(rig.upload->times().bytes, 1337u);
  }
}

// Far more uploads than may be queued, none joined before the end, each source forgotten at once.
TEST(HostUploadTest, ManyUploadsMayBeUnderWay) {
  Rig rig;
  constexpr size_t kUploads = 3 * HostUpload::kMaxUploads;
  std::vector<std::vector<uint8_t>> to(kUploads);
  for (size_t i = 0; i < kUploads; ++i) {
    to[i].resize(1 + i % 40);
    const auto ticket =
        rig.upload->Start(to[i].data(), Owned(SomeBytes(to[i].size(), static_cast<uint8_t>(i))));
    ASSERT_TRUE(ticket.ok());
    EXPECT_EQ(static_cast<uint64_t>(*ticket), i + 1);
  }
  ASSERT_TRUE(rig.upload->Flush().ok());
  rig.device->Run();
  for (size_t i = 0; i < kUploads; ++i) {
    EXPECT_EQ(to[i], SomeBytes(to[i].size(), static_cast<uint8_t>(i))) << i;
  }
}

TEST(HostUploadTest, AJoinedUploadIsEnqueuedWhole) {
  Rig rig(4, 8);
  std::vector<uint8_t> first(100), second(100);
  const auto ticket = rig.upload->Start(first.data(), Owned(SomeBytes(100, 1)));
  ASSERT_TRUE(rig.upload->Start(second.data(), Owned(SomeBytes(100, 2))).ok());
  ASSERT_TRUE(rig.upload->Join(*ticket).ok());
  ASSERT_TRUE(rig.upload->Join(*ticket).ok());  // again: nothing to wait for
  ASSERT_TRUE(rig.upload->Flush().ok());        // the late device may only be run when it is quiet
  rig.device->Run();
  EXPECT_EQ(first, SomeBytes(100, 1));
  EXPECT_EQ(second, SomeBytes(100, 2));
}

TEST(HostUploadTest, ReadsAPartOfAFile) {
  const ModelFiles files;
  Rig rig;
  std::string to(50, '\0');
  const std::string bytes = "0123456789" + std::string(50, 'x') + "y";
  ASSERT_TRUE(rig.upload->Start(to.data(), StoredBytes(FileOf(files, bytes), 8, 50)).ok());
  ASSERT_TRUE(rig.upload->Flush().ok());
  rig.device->Run();
  EXPECT_EQ(to, bytes.substr(8, 50));
}

TEST(HostUploadTest, ACutFileIsAnErrorThatStays) {
  const ModelFiles files;
  Rig rig;
  std::string to(200, '\0');
  const auto file = FileOf(files, std::string(200, 'x'));
  std::filesystem::resize_file(files.path() / "shard", 100);
  ASSERT_TRUE(rig.upload->Start(to.data(), StoredBytes(file, 0, 200)).ok());
  const absl::Status status = rig.upload->Flush();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("shard: the file ends early"));
  EXPECT_EQ(rig.upload->Start(to.data(), StoredBytes(file, 0, 1)).status(), status);
  EXPECT_EQ(rig.upload->Flush(), status);
}

TEST(HostUploadTest, ADeviceErrorEndsWhatIsQueued) {
  Rig rig(2, 8);
  rig.device->fail_after = 3;
  std::vector<uint8_t> to(1000);
  absl::Status status;
  for (int i = 0; i < 200 && status.ok(); ++i) {  // more than the queue holds
    status = rig.upload->Start(to.data(), Owned(SomeBytes(1000, 0))).status();
  }
  EXPECT_EQ(status, absl::InternalError("the device is gone"));
  EXPECT_EQ(rig.upload->Flush(), status);
}

TEST(HostUploadTest, MayBeGivenUpAtAnyTime) {
  std::vector<uint8_t> to(100000);
  for (int i = 0; i < 50; ++i) {
    Rig rig(4, 8);
    for (int n = 0; n < i; ++n) {
      ASSERT_TRUE(rig.upload->Start(to.data(), Owned(SomeBytes(to.size() / 50, 0))).ok());
    }
  }
}

}  // namespace
}  // namespace behemoth::worker
