#pragma once
// How errors of the libraries become those of the public interface.

#include <exception>
#include <new>

#include "core/base/error.h"
#include "core/base/exit_code.h"
#include "kvc/kvc.h"

namespace kvc::api {

// Calls `body` and returns what it returns. An Error becomes an Exception with its exit code as the
// code, and so does any other exception but one of the interface's own or of an allocation.
template <class Body>
decltype(auto) Translated(const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw Exception(static_cast<ErrorCode>(ExitCode(error.kind())), error.what());
  } catch (const Exception&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Exception(ErrorCode::kInternal, error.what());
  }
}

}  // namespace kvc::api
