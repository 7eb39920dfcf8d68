// What was built: "0.1.0" and the commit it was built from.
#pragma once

namespace behemoth::support {

const char* Version();
const char* Commit();

}  // namespace behemoth::support
