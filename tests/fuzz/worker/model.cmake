foreach(target safetensors_header model_config)
  behemoth_fuzz(${target}_fuzz SOURCES ${CMAKE_CURRENT_LIST_DIR}/${target}_fuzz.cc
                LIBS behemoth_worker_model CORPUS ${CMAKE_CURRENT_LIST_DIR}/corpus/${target})
endforeach()
