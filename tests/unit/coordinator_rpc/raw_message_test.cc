#include "coordinator/rpc/raw_message.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/rpc/artefact_stream.h"

namespace selvage::coordinator {
namespace {

// The message in pieces of that size, as HTTP/2 frames cut it.
grpc::ByteBuffer InPieces(const std::string& message, size_t size) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < message.size(); at += size) {
    slices.emplace_back(message.substr(at, size));
  }
  return {slices.data(), slices.size()};
}

std::string Joined(const RawBytes& bytes) {
  std::string all;
  for (const ByteSpan piece : bytes.pieces()) all += AsText(piece);
  return all;
}

std::string MessageOf(const std::string& chunk) {
  v1::UploadRequest request;
  request.set_chunk(chunk);
  return request.SerializeAsString();
}

TEST(RawMessageTest, ParseChunk_AnySizeAndPieces_GivesTheBytes) {
  for (const size_t size :
       {1U, 2U, 127U, 128U, 300U, 16'383U, 16'384U, 70'000U}) {
    std::string chunk(size, '\0');
    std::iota(chunk.begin(), chunk.end(), '\0');
    for (const size_t piece : {1U, 2U, 3U, 7U, 16'384U, 100'000U}) {
      const auto parsed = ParseChunk(InPieces(MessageOf(chunk), piece));
      ASSERT_TRUE(parsed.ok()) << size << ' ' << piece;
      EXPECT_EQ(parsed->size(), size);
      EXPECT_EQ(Joined(*parsed), chunk) << size << ' ' << piece;
    }
  }
}

TEST(RawMessageTest, ParseChunk_OtherEncodings_AreReadAsProtobufDoes) {
  // Twice the field: the last one counts. An unknown field. A long varint.
  for (const std::string& message :
       {MessageOf("abc") + MessageOf("xyz"), MessageOf("xyz") + "\x78\x05",
        std::string("\x12\x83\x80\0xyz", 7)}) {
    const auto parsed = ParseChunk(InPieces(message, 2));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(Joined(*parsed), "xyz");
  }
}

TEST(RawMessageTest, ParseChunk_NoChunk_IsEmptyOrRefused) {
  EXPECT_EQ(ParseChunk(InPieces(MessageOf(""), 9))->size(), 0U);
  EXPECT_EQ(ParseChunk(InPieces("", 9))->size(), 0U);
  v1::UploadRequest header;
  header.mutable_header()->set_size(5);
  EXPECT_EQ(ParseChunk(InPieces(header.SerializeAsString(), 9)).status().code(),
            StatusCode::kInvalidArgument);
  // Cut off, too long, no varint, no tag.
  for (const std::string& message :
       {MessageOf("abc").substr(0, 4), std::string("\x12\xff\xff\xff\xff\x7f"),
        std::string("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        std::string("\x12"), std::string("\x07\x01")}) {
    EXPECT_EQ(ParseChunk(InPieces(message, 9)).status().code(),
              StatusCode::kInternal)
        << message.size();
  }
}

class TextReader final : public ArtefactReader {
 public:
  TextReader(std::string text, uint64_t announced)
      : text_(std::move(text)), announced_(announced) {}
  uint64_t size() const override { return announced_; }
  Result<size_t> ReadAt(uint64_t offset, std::span<uint8_t> out) override {
    const std::string part = text_.substr(offset, out.size());
    std::copy(part.begin(), part.end(), out.begin());
    return part.size();
  }

 private:
  const std::string text_;
  const uint64_t announced_;
};

TEST(RawMessageTest, ReadChunk_OnTheWire_IsTheMessage) {
  for (const size_t size : {0U, 1U, 127U, 128U, 70'000U}) {
    TextReader reader(std::string(size, 'x'), size);
    for (const size_t part : {size, size / 2, size_t{0}}) {
      v1::FetchChunk expected;
      ASSERT_TRUE(ReadChunk(reader, size - part, part, expected).ok());
      const auto slice = ReadChunk(reader, size - part, part);
      ASSERT_TRUE(slice.ok());
      const grpc::ByteBuffer raw(&*slice, 1);
      const auto parsed = ParseMessage<v1::FetchChunk>(raw);
      ASSERT_TRUE(parsed.ok());
      EXPECT_EQ(parsed->SerializeAsString(), expected.SerializeAsString());
      EXPECT_EQ(raw.Length(), expected.ByteSizeLong());
    }
  }
  TextReader truncated("abc", 10);
  EXPECT_EQ(ReadChunk(truncated, 0, 10).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace selvage::coordinator
