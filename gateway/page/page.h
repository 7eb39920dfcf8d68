// The playground: one page, embedded at build time. Constant; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace behemoth::gateway {

std::string_view PageHtml();

// The Content-Security-Policy of `html`: each inline style and script by its own SHA-256, requests
// to this origin only, everything else refused. Source: CSP Level 3.
std::string PagePolicy(std::string_view html);

}  // namespace behemoth::gateway
