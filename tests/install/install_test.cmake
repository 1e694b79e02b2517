function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "failed (${result}): ${ARGV}\n${out}")
  endif()
  set(output "${out}" PARENT_SCOPE)
endfunction()
# An app must have understood who is running.
function(run_app)
  run(${ARGV})
  if(NOT output MATCHES "running 0?\\.9")
    message(FATAL_ERROR "${ARGV} said\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix)

# The examples as projects of their own, through find_package and pkg-config.
run(${CMAKE_COMMAND} -S ${APP} -B ${SCRATCH}/app -G Ninja
  -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${COMPILER}
  -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix -D EXAMPLES=${EXAMPLES})
run(${CMAKE_COMMAND} --build ${SCRATCH}/app)
run_app(${SCRATCH}/app/app_c ${MODEL} ${SCRATCH}/state_c)
run_app(${SCRATCH}/app/app_cpp ${MODEL} ${SCRATCH}/state_cpp)
set(ENV{PKG_CONFIG_PATH} ${SCRATCH}/prefix/${LIBDIR}/pkgconfig)
run(sh -c "${C_COMPILER} -std=c99 -pedantic -Wall -Werror '${EXAMPLES}/embed_c/main.c' \
  -o '${SCRATCH}/app_pc' $(pkg-config --cflags --libs selvage)")
set(ENV{LD_LIBRARY_PATH} ${SCRATCH}/prefix/${LIBDIR})
run_app(${SCRATCH}/app_pc ${MODEL} ${SCRATCH}/state_pc)
unset(ENV{LD_LIBRARY_PATH})

# The static C++ libraries.
run(${CMAKE_COMMAND} -S ${CONSUMER} -B ${SCRATCH}/build -G Ninja
  -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${COMPILER}
  -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix)
run(${CMAKE_COMMAND} --build ${SCRATCH}/build)
run(${SCRATCH}/build/consumer ${SCRATCH}/state)

foreach(program selvage selvage-coordinator selvage-device selvage-torch)
  run(${SCRATCH}/prefix/bin/${program} --version)
endforeach()
file(REMOVE_RECURSE ${SCRATCH})
