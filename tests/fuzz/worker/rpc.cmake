behemoth_fuzz(worker_generation_request_fuzz SOURCES generation_request_fuzz.cc
  LIBS behemoth_worker_rpc CORPUS ${CMAKE_CURRENT_LIST_DIR}/corpus/generation_request)
