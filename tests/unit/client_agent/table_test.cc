// What a spool's files say: manifests, tables, images, safetensors.
#include "client/agent/table.h"

#include <png.h>
#include <turbojpeg.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "client/agent/image.h"
#include "client/agent/json.h"
#include "client/agent/tensor_file.h"
#include "tests/testing/status_matchers.h"

namespace selvage::agent {
namespace {

using test::IsOk;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kManifest = R"({
  "collection": "motion",
  "tensors": [
    {"name": "x", "columns": ["a", "b"], "scale": 2, "mean": [1, 0], "std": 2},
    {"name": "y", "dtype": "int64", "columns": ["what"],
     "classes": ["rest", "walk"]}],
  "timestamp": {"column": "t", "unit": "ms"},
  "ttl_hours": 24, "count_max": 100
})";

Manifest Parse(const std::string& text) {
  Result<Manifest> manifest = ParseManifest(text);
  EXPECT_THAT(manifest, IsOk());
  return manifest.ok() ? *manifest : Manifest();
}

std::vector<float> Floats(const Bytes& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

int64_t Int(const Bytes& bytes) {
  int64_t out = 0;
  EXPECT_EQ(bytes.size(), sizeof out);
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

// All of them, or the first error.
Result<std::vector<SpooledExample>> ReadAll(
    Result<std::unique_ptr<ExampleReader>> reader) {
  if (!reader.ok()) return reader.status();
  std::vector<SpooledExample> out;
  for (;;) {
    SELVAGE_ASSIGN_OR_RETURN(std::optional<SpooledExample> example,
                             (*reader)->Next());
    if (!example.has_value()) return out;
    out.push_back(*std::move(example));
  }
}

Result<std::vector<SpooledExample>> Rows(const std::string& csv,
                                         const Manifest& manifest) {
  return ReadAll(OpenTable(csv, manifest, [](const std::string& name) {
    return Result<Bytes>(NotFound(name));
  }));
}

TEST(JsonTest, ParseJson_TwoReadings_IsRefused) {
  EXPECT_THAT(ParseJson(R"({"a":{"b":1},"c":{"b":2}})", "it"), IsOk());
  EXPECT_THAT(ParseJson(R"({"a":1,"a":2})", "it"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("\"a\" twice")));
  EXPECT_THAT(ParseJson(std::string(17, '[') + std::string(17, ']'), "it"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("deeper")));
  EXPECT_THAT(ParseJson(R"(["[[[[[[[[[[[[[[[[[[[[[\"[[[[["])", "it"), IsOk());
  EXPECT_THAT(ParseJson("{", "it"), StatusIs(StatusCode::kInvalidArgument));
}

TEST(ManifestTest, ParseManifest_Good_IsDeclared) {
  const host::Collection declared = Parse(kManifest).Declaration();
  ASSERT_EQ(declared.tensors.size(), 2U);
  EXPECT_EQ(declared.tensors[0].name, "x");
  EXPECT_THAT(declared.tensors[0].shape, ElementsAre(2));
  EXPECT_EQ(declared.tensors[1].dtype, SELVAGE_I64);
  EXPECT_THAT(declared.tensors[1].shape, ElementsAre());
  EXPECT_EQ(declared.ttl, std::chrono::hours(24));
  EXPECT_EQ(declared.count_max, 100U);
}

TEST(ManifestTest, ParseManifest_Bad_NamesTheKey) {
  const std::string head = R"({"collection": "c", "tensors": [)";
  const std::pair<std::string, std::string> cases[] = {
      {R"([])", "no object"},
      {R"({"tensors": []})", "collection is missing"},
      {R"({"collection": "c"})", "tensors"},
      {R"({"collection": 3})", "collection (\"3\") is not text"},
      {head + R"({"name": "x", "colums": ["a"]}]})", "unknown key \"colums\""},
      {head + R"({"name": "x", "dtype": "float64"}]})", "dtype"},
      {head + R"({"name": "x", "columns": ["a"], "shape": [2]}]})",
       "shape has 2 elements, its columns 1"},
      {head + R"({"name": "x", "columns": ["a..b"]}]})", "shape is missing"},
      {head + R"({"name": "x", "shape": [0]}]})", "shape"},
      {head + R"({"name": "x", "shape": [4294967296, 4294967296]}]})", "shape"},
      {head + R"({"name": "x"}, {"name": "x"}]})", "two tensors"},
      {head + R"({"name": "x", "columns": ["a"], "std": 0}]})", "std is 0"},
      {head + R"({"name": "x", "dtype": "int64", "scale": 2}]})", "float32"},
      {head + R"({"name": "x", "image": "f", "width": 4}]})", "height"},
      {head + R"({"name": "x", "image": "f", "width": 9999, "height": 1}]})",
       "tensors[0].width (\"9999\") is not a whole number in 1..8192"},
      {head + R"({"name": "x"}], "timestamp": {"column": "t", "unit": "h"}})",
       "s, ms or us"},
      {head + R"({"name": "x"}], "count_max": -1})", "count_max"}};
  for (const auto& [text, wanted] : cases) {
    EXPECT_THAT(ParseManifest(text),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(wanted)))
        << text;
  }
}

TEST(TableTest, Next_Rows_AreScaledAndNamed) {
  const Manifest manifest = Parse(kManifest);
  const auto rows = Rows(
      "\xef\xbb\xbf"
      "t, b,a,what,comment\r\n"
      "1700000000000,0.5,2,walk,\"said \"\"hi\"\",\nthen left\"\r\n"
      "\r\n"
      "1700000000001,-1e1, 1 ,rest,",
      manifest);
  ASSERT_THAT(rows, IsOk());
  ASSERT_EQ(rows->size(), 2U);
  EXPECT_THAT(Floats((*rows)[0].tensors[0]), ElementsAre(1.5F, 0.5F));
  EXPECT_EQ(Int((*rows)[0].tensors[1]), 1);
  EXPECT_EQ((*rows)[0].timestamp_us, 1700000000000000);
  EXPECT_THAT(Floats((*rows)[1].tensors[0]), ElementsAre(0.5F, -10.0F));
  EXPECT_EQ((*rows)[1].timestamp_us, 1700000000001000);
}

TEST(TableTest, Next_ColumnRange_IsEverythingBetween) {
  const Manifest manifest = Parse(
      R"({"collection": "c", "tensors": [
          {"name": "x", "columns": ["f0..f2"], "shape": [3, 1]},
          {"name": "y", "dtype": "int64", "columns": ["y"]}]})");
  const auto rows = Rows("f0,f1,f2,y\n1,2,3,4.0\n", manifest);
  ASSERT_THAT(rows, IsOk());
  EXPECT_THAT(Floats((*rows)[0].tensors[0]), ElementsAre(1, 2, 3));
  EXPECT_EQ(Int((*rows)[0].tensors[1]), 4);
}

TEST(TableTest, Next_BadTables_NameLineColumnAndValue) {
  const Manifest manifest = Parse(kManifest);
  const std::string head = "t,a,b,what\n";
  const std::pair<std::string, std::string> cases[] = {
      {"", "no header"},
      {"t,a,what\n", "no column \"b\""},
      {"t,a,b,what,a\n", "\"a\" twice"},
      {head + "1,2,3\n", "line 2 has 3 cells, the header 4"},
      {head + "1,2,3,walk\n1,x,3,walk\n",
       "line 3, column \"a\": \"x\" is not a finite number"},
      {head + "1,nan,3,walk\n", "finite"},
      {head + "1,1e300,3,walk\n", "float32"},
      {head + "1,2,3,run\n", "\"run\" is not one of the 2 classes"},
      {head + "-1,2,3,walk\n", "a time since 1970"},
      {head + "1,\"2,3,walk\n", "quotes that do not end"},
      {head + "1,2\"2,3,walk\n", "quotes in the middle"},
      {head + std::string((1 << 20) + 2, '1'), "longer than"}};
  for (const auto& [csv, wanted] : cases) {
    EXPECT_THAT(Rows(csv, manifest),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(wanted)))
        << csv.substr(0, 80);
  }
}

Bytes Png(uint32_t width, uint32_t height, const Bytes& samples, bool grey) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  Bytes out(1 << 16);
  png_alloc_size_t size = out.size();
  EXPECT_NE(png_image_write_to_memory(&image, out.data(), &size, 0,
                                      samples.data(), 0, nullptr),
            0);
  out.resize(size);
  return out;
}

Bytes Jpeg(int width, int height, const Bytes& grey) {
  const tjhandle encoder = tjInitCompress();
  unsigned char* out = nullptr;
  unsigned long size = 0;
  EXPECT_EQ(tjCompress2(encoder, grey.data(), width, 0, height, TJPF_GRAY, &out,
                        &size, TJSAMP_GRAY, 100, 0),
            0);
  Bytes bytes(out, out + size);
  tjFree(out);
  tjDestroy(encoder);
  return bytes;
}

TEST(ImageTest, DecodeImage_EveryFormat_GivesItsSamples) {
  const ImageSpec grey{.width = 2, .height = 1, .channels = 1};
  const ImageSpec color{.width = 2, .height = 1, .channels = 3};
  EXPECT_THAT(*DecodeImage(Png(2, 1, {9, 200}, true), grey),
              ElementsAre(9, 200));
  EXPECT_THAT(*DecodeImage(Png(2, 1, {1, 2, 3, 4, 5, 6}, false), color),
              ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(*DecodeImage(ToBytes("P5\n# a comment\n2 1 255\nAB"), grey),
              ElementsAre('A', 'B'));
  EXPECT_THAT(*DecodeImage(ToBytes("P6 2 1 255\nABCDEF"), color),
              ElementsAre('A', 'B', 'C', 'D', 'E', 'F'));
  const ImageSpec square{.width = 8, .height = 8, .channels = 1};
  const Result<Bytes> jpeg = DecodeImage(Jpeg(8, 8, Bytes(64, 100)), square);
  ASSERT_THAT(jpeg, IsOk());
  EXPECT_THAT(*jpeg, ::testing::Each(::testing::AllOf(::testing::Ge(98),
                                                      ::testing::Le(102))));
}

TEST(ImageTest, DecodeImage_DamagedOrOfAnotherSize_IsRefused) {
  const ImageSpec spec{.width = 8, .height = 8, .channels = 1};
  const Bytes samples(64, 77);
  EXPECT_THAT(DecodeImage(Png(8, 9, Bytes(72, 1), true), spec),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("8 x 9, the manifest says 8 x 8")));
  EXPECT_THAT(DecodeImage(ToBytes("P5 99999999 99999999 255\n"), spec),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(DecodeImage(ToBytes("GIF89a"), spec),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("neither")));
  for (const Bytes& good : {Png(8, 8, samples, true), Jpeg(8, 8, samples)}) {
    EXPECT_THAT(DecodeImage(good, spec), IsOk());
    for (const size_t size : {size_t{0}, size_t{4}, size_t{20}, good.size() / 2,
                              good.size() - 15}) {
      EXPECT_THAT(DecodeImage(ByteSpan(good).first(size), spec),
                  StatusIs(StatusCode::kInvalidArgument))
          << size;
    }
  }
}

TEST(TableTest, Next_Images_AreLaidOutAsWanted) {
  Manifest manifest = Parse(
      R"({"collection": "c", "tensors": [{"name": "x", "image": "file",
          "width": 2, "height": 1, "channels": 3, "scale": 0.5,
          "mean": [0, 1, 2]}]})");
  const ImageLoader images = [](const std::string& name) {
    return name == "a.ppm" ? Result<Bytes>(ToBytes("P6 2 1 255\nABCDEF"))
                           : Result<Bytes>(NotFound(name));
  };
  EXPECT_THAT(manifest.tensors[0].shape, ElementsAre(3, 1, 2));
  auto rows = ReadAll(OpenTable("file\na.ppm\n", manifest, images));
  ASSERT_THAT(rows, IsOk());
  EXPECT_THAT(Floats((*rows)[0].tensors[0]),
              ElementsAre(32.5, 34, 32, 33.5, 31.5, 33));
  manifest.tensors[0].dtype = SELVAGE_U8;
  manifest.tensors[0].image->channels_first = false;
  rows = ReadAll(OpenTable("file\na.ppm\n", manifest, images));
  ASSERT_THAT(rows, IsOk());
  EXPECT_EQ(ToString((*rows)[0].tensors[0]), "ABCDEF");
  EXPECT_THAT(
      ReadAll(OpenTable("file\nb.ppm\n", manifest, images)),
      StatusIs(StatusCode::kNotFound, HasSubstr("line 2, image \"b.ppm\"")));
}

Bytes Safetensors(const std::string& header, const Bytes& data) {
  Bytes out;
  AppendLe(out, static_cast<uint64_t>(header.size()));
  AppendBytes(out, AsBytes(header));
  AppendBytes(out, data);
  return out;
}

const char* const kHeader =
    R"({"__metadata__":{"collection":"motion"},)"
    R"("x":{"dtype":"F32","shape":[2,2],"data_offsets":[16,32]},)"
    R"("y":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})";

Bytes GoodFile() {
  Bytes data;
  for (const int64_t y : {1, 0}) AppendLe(data, y);
  for (const float x : {1.0F, 2.0F, 3.0F, 4.0F}) AppendLe(data, x);
  return Safetensors(kHeader, data);
}

TEST(TensorFileTest, Read_Good_GivesExamples) {
  const Bytes bytes = GoodFile();
  const Result<TensorFile> file = TensorFile::Parse(bytes);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ(file->collection(), "motion");
  const auto rows = ReadAll(file->Read(Parse(kManifest)));
  ASSERT_THAT(rows, IsOk());
  ASSERT_EQ(rows->size(), 2U);
  EXPECT_THAT(Floats((*rows)[1].tensors[0]), ElementsAre(3, 4));
  EXPECT_EQ(Int((*rows)[0].tensors[1]), 1);
  EXPECT_FALSE((*rows)[0].local_only);
  // The same without a manifest.
  const Result<Manifest> own = file->ManifestFor("motion", {"x", "y"});
  ASSERT_THAT(own, IsOk());
  EXPECT_THAT(ReadAll(file->Read(*own)), IsOk());
  EXPECT_THAT(file->ManifestFor("motion", {"x", "z"}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("\"z\"")));
}

TEST(TensorFileTest, Parse_Damaged_IsRefused) {
  const Bytes good = GoodFile();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(TensorFile::Parse(ByteSpan(good).first(size)),
                StatusIs(StatusCode::kInvalidArgument))
        << size;
  }
  const auto with = [](const std::string& x) {
    return TensorFile::Parse(Safetensors("{\"x\":" + x + "}", Bytes(16, 0)));
  };
  for (
      const char* x :
      {"3", "{}", R"({"dtype":"F16","shape":[8],"data_offsets":[0,16]})",
       R"({"dtype":"F32","shape":[5],"data_offsets":[0,16]})",
       R"({"dtype":"F32","shape":[4],"data_offsets":[0,12]})",
       R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})",
       R"({"dtype":"F32","shape":[3],"data_offsets":[4,16]})",
       R"({"dtype":"F32","shape":[-4],"data_offsets":[0,16]})",
       R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]})",
       R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})"}) {
    EXPECT_THAT(with(x), StatusIs(StatusCode::kInvalidArgument)) << x;
  }
  Bytes huge(8, 0xff);
  EXPECT_THAT(TensorFile::Parse(huge), StatusIs(StatusCode::kInvalidArgument));
}

TEST(TensorFileTest, Read_DoesNotFit_NamesTheTensor) {
  const Bytes bytes = GoodFile();
  const Result<TensorFile> file = TensorFile::Parse(bytes);
  ASSERT_THAT(file, IsOk());
  Manifest manifest = Parse(kManifest);
  manifest.tensors[0].shape = {3};
  EXPECT_THAT(
      file->Read(manifest),
      StatusIs(StatusCode::kInvalidArgument,
               HasSubstr("\"x\" has shape [2, 2], the collection [3]")));
  manifest = Parse(kManifest);
  manifest.tensors[1].dtype = SELVAGE_U8;
  EXPECT_THAT(file->Read(manifest),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("\"y\" is int64, the collection has uint8")));
  manifest.tensors.pop_back();
  EXPECT_THAT(file->Read(manifest),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("\"y\" is not in the collection")));
}

}  // namespace
}  // namespace selvage::agent
