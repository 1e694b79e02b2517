#include "client/agent/image.h"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <memory>
#include <string>

#include "client/agent/json.h"

namespace selvage::agent {
namespace {

Status CheckSize(int64_t width, int64_t height, const ImageSpec& wanted) {
  if (width == wanted.width && height == wanted.height) return OkStatus();
  return InvalidArgument("the image is " + std::to_string(width) + " x " +
                         std::to_string(height) + ", the manifest says " +
                         std::to_string(wanted.width) + " x " +
                         std::to_string(wanted.height));
}

size_t SizeOf(const ImageSpec& wanted) {
  return static_cast<size_t>(wanted.width * wanted.height * wanted.channels);
}

Result<Bytes> DecodePng(ByteSpan file, const ImageSpec& wanted) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (png_image_begin_read_from_memory(&image, file.data(), file.size()) == 0) {
    return InvalidArgument("the PNG is damaged: " + Quoted(image.message));
  }
  const std::unique_ptr<png_image, void (*)(png_image*)> freed(&image,
                                                               png_image_free);
  SELVAGE_RETURN_IF_ERROR(CheckSize(image.width, image.height, wanted));
  image.format = wanted.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  Bytes out(SizeOf(wanted));
  const png_color black{};
  if (png_image_finish_read(&image, &black, out.data(), 0, nullptr) == 0) {
    return InvalidArgument("the PNG is damaged: " + Quoted(image.message));
  }
  return out;
}

Result<Bytes> DecodeJpeg(ByteSpan file, const ImageSpec& wanted) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(),
                                                         tjDestroy);
  if (decoder == nullptr) return Internal("no JPEG decoder");
  int width = 0;
  int height = 0;
  int subsampling = 0;
  int colors = 0;
  const auto size = static_cast<unsigned long>(file.size());
  if (tjDecompressHeader3(decoder.get(), file.data(), size, &width, &height,
                          &subsampling, &colors) != 0) {
    return InvalidArgument("the JPEG is damaged: " +
                           Quoted(tjGetErrorStr2(decoder.get())));
  }
  SELVAGE_RETURN_IF_ERROR(CheckSize(width, height, wanted));
  Bytes out(SizeOf(wanted));
  // A truncated file is a warning to the library, and an error to us. A
  // progressive one may have thousands of scans of nothing: limited too.
  if (tjDecompress2(
          decoder.get(), file.data(), size, out.data(), width, 0, height,
          wanted.channels == 1 ? TJPF_GRAY : TJPF_RGB,
          TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) != 0) {
    return InvalidArgument("the JPEG is damaged: " +
                           Quoted(tjGetErrorStr2(decoder.get())));
  }
  return out;
}

// "P5 WIDTH HEIGHT 255\n" and the samples; "#" begins a comment.
Result<Bytes> DecodePnm(ByteSpan file, const ImageSpec& wanted) {
  size_t at = 2;
  const auto number = [&]() -> int64_t {
    while (at < file.size()) {
      if (file[at] == '#') {
        while (at < file.size() && file[at] != '\n') ++at;
      } else if (file[at] == ' ' || file[at] == '\n' || file[at] == '\r' ||
                 file[at] == '\t') {
        ++at;
      } else {
        break;
      }
    }
    int64_t value = -1;
    for (; at < file.size() && file[at] >= '0' && file[at] <= '9'; ++at) {
      value = std::max<int64_t>(value, 0) * 10 + (file[at] - '0');
      if (value > 1'000'000) break;
    }
    return value;
  };
  const int64_t width = number();
  const int64_t height = number();
  const int64_t most = number();
  if (most != 255 || at >= file.size()) {
    return InvalidArgument("the PNM has no header with a maximum of 255");
  }
  ++at;
  SELVAGE_RETURN_IF_ERROR(CheckSize(width, height, wanted));
  const int64_t channels = file[1] == '5' ? 1 : 3;
  if (channels != wanted.channels) {
    return InvalidArgument("the PNM has " + std::to_string(channels) +
                           " channels, the manifest says " +
                           std::to_string(wanted.channels));
  }
  if (file.size() - at != SizeOf(wanted)) {
    return InvalidArgument("the PNM has " + std::to_string(file.size() - at) +
                           " bytes of samples, its size implies " +
                           std::to_string(SizeOf(wanted)));
  }
  return Bytes(file.begin() + static_cast<ptrdiff_t>(at), file.end());
}

}  // namespace

Result<Bytes> DecodeImage(ByteSpan file, const ImageSpec& wanted) {
  const std::string_view text = AsText(file);
  if (text.starts_with("\x89PNG\r\n\x1a\n")) return DecodePng(file, wanted);
  if (text.starts_with("\xff\xd8\xff")) return DecodeJpeg(file, wanted);
  if (text.starts_with("P5") || text.starts_with("P6")) {
    return DecodePnm(file, wanted);
  }
  return InvalidArgument("the image is neither PNG, JPEG, PGM nor PPM");
}

}  // namespace selvage::agent
