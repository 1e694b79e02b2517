# Runs APP MODEL SCRATCH from a fresh state directory, and shows what it says.
file(REMOVE_RECURSE ${SCRATCH} ${SCRATCH}-cache)
execute_process(COMMAND ${APP} ${MODEL} ${SCRATCH}
  RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE err)
file(REMOVE_RECURSE ${SCRATCH} ${SCRATCH}-cache)
execute_process(COMMAND ${CMAKE_COMMAND} -E echo_append "${out}${err}")
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${APP} ended with ${result}")
endif()
