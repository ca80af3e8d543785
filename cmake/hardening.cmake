# What the compiler and the linker can do against the use of a mistake; the test `hardening` reads it
# out of the finished files. A fuzzer's build goes without: it wants to meet the mistake itself.
include(CheckPIESupported)
include(CheckCSourceCompiles)

check_pie_supported(LANGUAGES C) # with CMAKE_POSITION_INDEPENDENT_CODE: -pie for programs
add_link_options(-Wl,-z,relro,-z,now -Wl,-z,noexecstack)
add_compile_options(-fstack-protector-strong)

foreach(flag -fstack-clash-protection -fcf-protection=full) # the latter: x86 only
  string(MAKE_C_IDENTIFIER "MESHD_HAS${flag}" has)
  set(CMAKE_REQUIRED_FLAGS "-Werror ${flag}")
  check_c_source_compiles("int main(void) { return 0; }" ${has})
  if(${has})
    add_compile_options(${flag})
  endif()
endforeach()

# Without optimisation there is nothing to fortify with, and sanitizers look at the calls themselves.
if(NOT MESHD_SANITIZE)
  set(CMAKE_REQUIRED_FLAGS "-Werror -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
  check_c_source_compiles("#include <string.h>\nint main(void) { return 0; }" MESHD_HAS_FORTIFY_3)
  set(level $<IF:$<BOOL:${MESHD_HAS_FORTIFY_3}>,3,2>)
  add_compile_options("$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=${level}>")
endif()
unset(CMAKE_REQUIRED_FLAGS)
