foreach(decoder task_file program_file task_json program_json plan_json
    safetensors master_checkpoint tensor_pattern)
  selvage_fuzz(fuzz_${decoder} SRCS plan/fuzz_${decoder}.cc DEPS selvage::plan)
endforeach()
