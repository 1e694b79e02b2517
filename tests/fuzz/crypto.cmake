selvage_fuzz(fuzz_x509 SRCS crypto/fuzz_x509.cc DEPS selvage::crypto)
selvage_fuzz(fuzz_identity_key
  SRCS crypto/fuzz_identity_key.cc DEPS selvage::crypto)
selvage_fuzz(fuzz_text_encoding
  SRCS crypto/fuzz_text_encoding.cc DEPS selvage::base)
