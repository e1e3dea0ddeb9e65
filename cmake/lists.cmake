# Lists that follow from other files, for C++: an op for each file of csrc/ops, and the first words of each entry of two tables in
# Python, which are read as text, so that a build needs no Python.

file(GLOB ops CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/csrc/ops csrc/ops/*.cpp)
list(TRANSFORM ops REPLACE "(.*)[.]cpp" "X(\\1)")
list(JOIN ops " " ops)

# `out`: X(...) of what `entry` has in its groups, for every place of a file that it fits.
function(entries file entry groups out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} text)
  string(REGEX MATCHALL "${entry}" found "${text}")
  list(TRANSFORM found REPLACE "${entry}" "${groups}")
  list(JOIN found " " found)
  set(${out} "${found}" PARENT_SCOPE)
endfunction()
entries(pykernel/observables.py "Row\\([ \n]*\"([a-z0-9_]+)\",[ \n]*\"([a-z]+)\"" "X(\\1, \\2)" rows)
entries(pykernel/distributions.py "\"([a-z]+)\": Distribution\\(" "X(\\1)" distributions)

configure_file(cmake/lists.hpp.in ${PROJECT_BINARY_DIR}/include/pykernel/lists.hpp @ONLY)
