# Included from tests/kernels/CMakeLists.txt. These tests launch kernels, so they exist where a CUDA
# compiler does; without a device they skip and say so.
if(BEHEMOTH_HAVE_CUDA)
  foreach(kernel paged_attention fused sampling)
    behemoth_test(${kernel}_kernel_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${kernel}_test.cc
                  LIBS behemoth_kernels LABELS gpu TIMEOUT_S 300)
  endforeach()
endif()
