# The live page as one array in C: page.html with its style and its scripts put in.
#   cmake -DFROM=<folder of the page> -DTO=<file.c> -P embed.cmake
file(READ ${FROM}/page.html page)
file(READ ${FROM}/page.css style)
set(script "")
foreach(part model table mesh panels)
  file(READ ${FROM}/${part}.js text)
  string(APPEND script "${text}")
endforeach()
string(REPLACE "@STYLE@" "${style}" page "${page}")
string(REPLACE "@SCRIPT@" "${script}" page "${page}")
file(WRITE ${TO}.html "${page}")
file(READ ${TO}.html bytes HEX)
string(REGEX REPLACE "(................................................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${TO} "/* Made by embed.cmake. */\n#include \"web/document.h\"\n
const unsigned char page_document[] = {\n${bytes}};\nconst size_t page_document_len = sizeof(page_document);\n")
