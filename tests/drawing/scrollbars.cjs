// @grafana/ui imports this package's default, which is a property of what the package exports as CommonJS.
module.exports = require("./node_modules/react-custom-scrollbars-2/lib/index.js").default;
