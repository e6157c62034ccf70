# render.sh TITLE SOURCE TARGET: one HTML page for each text file.
set -eu
title=$1 source=$2 target=$3
mkdir -p "$target"
for page in "$source"/*.txt; do
    name=$(basename "$page" .txt)
    {
        echo "<!doctype html><meta charset=utf-8><title>$title: $name</title>"
        echo "<h1>$title</h1>"
        sed -e 's/^$/<p>/' "$page"
    } > "$target/$name.html"
done
