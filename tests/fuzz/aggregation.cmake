foreach(decoder checkpoint_parts codec delta_codec evaluation_sums exact_sum metric_sums)
  selvage_fuzz(fuzz_${decoder} SRCS aggregation/fuzz_${decoder}.cc
    DEPS selvage::aggregation)
endforeach()
