// What the files that make the Python module share.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>

namespace kvorum {

// Addresses come from Python as integers.
template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Binds the attention of a tick; picks its kernels by the name of a path.
void bind_attention(nanobind::module_& m);
void use_attention(const char* name);

}  // namespace kvorum
